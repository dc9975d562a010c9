//! What the README tells people to type works, in its order.

use std::path::Path;

use crate::broker::Broker;

/// The `falcon` commands of the README's shell blocks, without `serve`, whose place the test takes.
fn commands() -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).expect("it is part of the sources");
    let blocks = text
        .split("```sh\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let lines = blocks
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("falcon "));
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line));
    let commands = lines.map(|line| line.split_whitespace().map(str::to_owned).collect());
    let is_client = |args: &Vec<String>| args.first().is_some_and(|first| first != "serve");
    commands.filter(is_client).collect()
}

#[test]
fn every_command_of_the_readme_succeeds_in_its_order() {
    let broker = Broker::start();
    let commands = commands();
    assert!(
        commands.len() >= 8,
        "the README has lost its commands: {commands:?}"
    );
    for command in commands {
        let args: Vec<&str> = command.iter().map(String::as_str).collect();
        let ran = broker.run(&args);
        if matches!(args.as_slice(), ["subscribe", ..]) {
            assert!(!ran.stdout.is_empty(), "{args:?} printed nothing");
        }
    }
}
