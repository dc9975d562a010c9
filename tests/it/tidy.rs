//! The sources keep the house's rules, so that nobody has to remember them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use falcon::config::{Config, KEYS};
use falcon::metrics::{Rejection, TABLE};

use crate::broker::{Running, falcon};

/// A file is read in one sitting.
const FILE_LINES_MAX: usize = 500;
/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 8] = [
    "utils", "util", "common", "helpers", "helper", "types", "manager", "misc",
];
/// Rooms of the broker from the top: a room uses rooms further down, and those beside it as long
/// as there is no cycle. `catalog` and `group` are state that the writer owns.
const ROOMS: [&[&str]; 9] = [
    &["main"],
    &["cli"],
    &["broker"],
    &["server", "admin"],
    &["reader"],
    &["writer"],
    &["catalog", "group"],
    &["partition", "store"],
    &["io"],
];
/// Used by every room, using none.
const FOUNDATIONS: [&str; 4] = ["clock", "config", "metrics", "telemetry"];
/// Rooms that know neither tasks nor sockets.
const SYNCHRONOUS: [&str; 6] = ["io", "store", "partition", "catalog", "group", "metrics"];

struct Source {
    /// From the workspace's root.
    path: String,
    text: String,
    /// Without comments and without the tests at the end.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn find_files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            find_files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

/// The product's sources, without files of tests.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    for folder in ["src", "client/src", "protocol/src"] {
        find_files(&root().join(folder), "rs", &mut paths);
    }
    assert!(paths.len() > 20, "the sources are not where they were");
    let below_root = |path: &PathBuf| {
        let path = path.strip_prefix(root()).expect("it is below the root");
        path.display().to_string()
    };
    let is_test = |path: &String| path.ends_with("tests.rs") || path.contains("/tests/");
    let paths = paths.iter().map(below_root);
    let sources = paths.filter(|path| !is_test(path)).map(|path| {
        let text = read(&path);
        let code = text.split("#[cfg(test)]\nmod tests {").next();
        let code = code.unwrap_or_default().lines();
        let code = code.filter(|line| !line.trim_start().starts_with("//"));
        Source {
            code: code.collect::<Vec<_>>().join("\n"),
            path,
            text,
        }
    });
    sources.collect()
}

#[track_caller]
fn report(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// `src/writer/queue.rs` -> `writer`.
fn room(path: &str) -> Option<&str> {
    let first = path.strip_prefix("src/")?.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib").then_some(room)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Names that follow `prefix` in the code, also those at the start of a group in braces.
fn named_after<'a>(code: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let is_part = |c: char| is_name(c) || c == ':' || c == '"';
        if code[..at].ends_with(is_part) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let group = rest
            .strip_prefix('{')
            .and_then(|rest| rest.split(';').next());
        match group {
            Some(group) => names.extend(outer_names(group)),
            None => names.extend(rest.split(|c| !is_name(c)).next()),
        }
    }
    names
}

/// `a::{b, c}, d` -> `a`, `d`.
fn outer_names(group: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let (mut depth, mut is_start) = (0, true);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => is_start = true,
            _ if is_start && depth == 0 && is_name(c) => {
                names.extend(group[at..].split(|c| !is_name(c)).next());
                is_start = false;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn files_are_short_enough_to_read() {
    let lines = |source: &Source| source.text.lines().count();
    let sources = sources();
    let long = sources.iter().filter(|s| lines(s) > FILE_LINES_MAX);
    let problems = long.map(|source| format!("{}: {} lines", source.path, lines(source)));
    report(&problems.collect::<Vec<_>>());
}

#[test]
fn names_say_what_is_inside() {
    let problems = sources().into_iter().filter_map(|source| {
        let mut parts = source.path.trim_end_matches(".rs").split('/');
        let banned = parts.find(|part| BANNED_NAMES.contains(part))?;
        Some(format!("{}: {banned:?} says nothing", source.path))
    });
    report(&problems.collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_to_do() {
    let marker = concat!("TO", "DO");
    let sources = sources();
    let left = sources.iter().filter(|source| source.text.contains(marker));
    let problems = left.map(|source| format!("{} contains {marker}", source.path));
    report(&problems.collect::<Vec<_>>());
}

#[test]
fn imports_run_one_way() {
    let rank = |room: &str| ROOMS.iter().position(|rooms| rooms.contains(&room));
    let mut problems = Vec::new();
    let mut beside: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources() {
        let path = &source.path;
        let Some(from) = room(path) else { continue };
        if !FOUNDATIONS.contains(&from) && rank(from).is_none() {
            problems.push(format!("{path}: {from} has no place in ROOMS of this test"));
        }
        let mut used = named_after(&source.code, "crate::");
        if ["main", "cli"].contains(&from) {
            used.extend(named_after(&source.code, "falcon::"));
        }
        for to in used {
            let Some(below) = rank(to).filter(|_| to != from) else {
                continue;
            };
            match rank(from) {
                Some(above) if above < below => {}
                Some(same) if same == below => {
                    beside.entry(from.into()).or_default().insert(to.into());
                }
                Some(_) | None => problems.push(format!("{path}: {from} uses {to}")),
            }
        }
    }
    for (from, rooms) in &beside {
        let mutual = |to: &&String| beside.get(*to).is_some_and(|back| back.contains(from));
        let cycles = rooms.iter().filter(mutual);
        problems.extend(cycles.map(|to| format!("{from} and {to} use each other")));
    }
    report(&problems);
}

#[test]
fn the_core_knows_no_tasks_and_no_sockets() {
    let mut problems = Vec::new();
    for source in sources() {
        let is_core = room(&source.path).is_some_and(|room| SYNCHRONOUS.contains(&room));
        let is_async = ["tokio", "async fn", ".await"]
            .into_iter()
            .find(|word| source.code.contains(word));
        if let Some(word) = is_async.filter(|_| is_core) {
            problems.push(format!("{} uses {word}", source.path));
        }
    }
    report(&problems);
}

#[test]
fn client_and_protocol_stand_alone() {
    let mut problems = Vec::new();
    for (folder, allowed) in [("client", &["falcon_protocol"][..]), ("protocol", &[])] {
        let is_allowed = |name: &str| allowed.contains(&name.replace('-', "_").as_str());
        let inside = |source: &Source| source.path.starts_with(&format!("{folder}/"));
        for source in sources().into_iter().filter(inside) {
            for name in ["falcon", "falcon_protocol", "falcon_client"] {
                let used = named_after(&source.code, &format!("{name}::"));
                if !used.is_empty() && !is_allowed(name) {
                    problems.push(format!("{} uses {name}", source.path));
                }
            }
        }
        let manifest = read(&format!("{folder}/Cargo.toml"));
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        let dependencies = manifest["dependencies"].as_table().expect("a table");
        let ours = dependencies
            .keys()
            .filter(|name| name.starts_with("falcon"));
        for name in ours.filter(|name| !is_allowed(name)) {
            problems.push(format!("{folder}/Cargo.toml depends on {name}"));
        }
    }
    report(&problems);
}

#[test]
fn the_error_page_is_the_table() {
    let ran = Running::start(&mut falcon(&["errors", "--markdown"])).finish(b"");
    let remedy = "run: falcon errors --markdown > docs/ERRORS.md";
    assert!(read("docs/ERRORS.md") == ran.text(), "{remedy}");
}

#[test]
fn every_setting_is_documented_with_its_default() {
    let page = read("docs/OPERATIONS.md");
    let config = Config::default();
    let rows = KEYS.iter().map(|key| {
        let (name, default, meaning) = (key.name, key.show(&config), key.meaning);
        format!(
            "| `{name}` | `{default}` | {} | {meaning} |",
            key.kind.allowed()
        )
    });
    let missing: Vec<String> = rows
        .filter(|row| !page.lines().any(|line| line == row))
        .collect();
    let missing = missing.join("\n");
    assert!(missing.is_empty(), "docs/OPERATIONS.md lacks:\n{missing}");
}

#[test]
fn every_metric_and_rejection_is_documented_and_nothing_else() {
    let page = read("docs/OPERATIONS.md");
    let metrics = TABLE.iter().map(|metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let (name, kind) = (metric.name, metric.kind.name());
        format!("| `{name}` | {kind} | {labels} | {} |", metric.meaning)
    });
    let reasons = Rejection::ALL.iter().map(|rejection| {
        let (name, meaning) = (rejection.name(), rejection.meaning());
        format!("| `{name}` | {meaning} |")
    });
    let declared: BTreeSet<String> = metrics.chain(reasons).collect();
    let below = |title: &str| {
        let section = page.split(&format!("### {title}\n")).nth(1);
        let section = section.and_then(|rest| rest.split("\n#").next());
        let rows = section.unwrap_or_default().lines();
        rows.filter(|line| line.starts_with("| `"))
    };
    let metrics = below("Metrics").chain(below("Reasons of `falcon_rejections_total`"));
    let documented: BTreeSet<String> = metrics.map(str::to_owned).collect();
    let missing = declared.difference(&documented);
    let missing = missing.map(|row| format!("docs/OPERATIONS.md lacks: {row}"));
    let extra = documented.difference(&declared);
    let extra = extra.map(|row| format!("docs/OPERATIONS.md has, and the broker not: {row}"));
    report(&missing.chain(extra).collect::<Vec<_>>());
}

#[test]
fn every_command_and_exit_code_is_documented() {
    let page = read("docs/OPERATIONS.md");
    let help = Running::start(&mut falcon(&["--help"])).finish(b"");
    let commands = help.text().split("Commands:\n").nth(1);
    let commands = commands.and_then(|rest| rest.split("\n\n").next());
    let names = commands
        .expect("a list of commands")
        .lines()
        .filter_map(|line| {
            let name = line.strip_prefix("  ")?.split(' ').next()?;
            (!name.is_empty() && name != "help").then(|| format!("falcon {name}"))
        });
    let codes = [0, 1, 2, 3, 4, 130].map(|code| format!("| {code} |"));
    let missing = names.chain(codes).filter(|text| !page.contains(text));
    let problems = missing.map(|text| format!("docs/OPERATIONS.md lacks {text:?}"));
    report(&problems.collect::<Vec<_>>());
}

#[test]
fn documented_log_messages_exist() {
    let page = read("docs/OPERATIONS.md");
    let is_row = |line: &&str| {
        ["| info |", "| warn |", "| error |"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let sources: Vec<String> = sources().into_iter().map(|source| source.text).collect();
    let mut problems = Vec::new();
    for row in page.lines().filter(is_row) {
        let messages = row.split(" | ").nth(1).unwrap_or_default();
        for message in messages.split('`').skip(1).step_by(2) {
            let quoted = format!("\"{message}");
            if !sources.iter().any(|text| text.contains(&quoted)) {
                problems.push(format!("nothing logs {message:?}"));
            }
        }
    }
    assert!(
        page.lines().any(|line| is_row(&line)),
        "the table of log lines is gone"
    );
    report(&problems);
}

#[test]
fn relative_links_lead_somewhere() {
    let mut pages = Vec::new();
    find_files(root(), "md", &mut pages);
    let mut problems = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).expect("pages are text");
        let targets = text.split("](").skip(1);
        for target in targets.filter_map(|rest| rest.split(')').next()) {
            let path = target.split(['#', ' ']).next().unwrap_or_default();
            let is_elsewhere = path.contains("://") || path.starts_with("mailto:");
            let folder = page.parent().expect("a file has a folder");
            if !is_elsewhere && !path.is_empty() && !folder.join(path).exists() {
                problems.push(format!("{}: {target}", page.display()));
            }
        }
    }
    report(&problems);
}
