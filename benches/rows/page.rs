//! The table in `benches/README.md`, and the figures in `benches/rows.json`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::available_parallelism;

use jiff::Timestamp;

use crate::limits::Fallible;
use crate::line::{HEAD, Line, Source};
use crate::load::Stage;

const BEGIN: &str = "<!-- rows:begin -->";
/// Throughput over time.
pub(crate) const PICTURE: &str = "growth.svg";
const END: &str = "<!-- rows:end -->";

const COLUMNS_MAX: usize = 118;

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("benches")
        .join(name)
}

/// When, from what and where the figures are.
pub(crate) fn source(stage: &Stage) -> Fallible<Source> {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude", "*"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let commit = described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |argument: &&String| !matches!(argument.as_str(), "--bench" | "--write");
    let arguments: Vec<&str> = arguments
        .iter()
        .filter(is_asked)
        .map(String::as_str)
        .collect();
    let command = format!("cargo bench --bench rows -- {}", arguments.join(" "));
    Ok(Source {
        date: Timestamp::now().strftime("%Y-%m-%d").to_string(),
        commit: commit.unwrap_or_default(),
        machine: machine(&stage.folder)?,
        command: command.trim_end_matches([' ', '-']).to_owned(),
    })
}

fn machine(folder: &Path) -> Fallible<String> {
    let after = |path: &str, name: &str| -> Fallible<String> {
        let text = fs::read_to_string(path)?;
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_once(':'));
        Ok(value.map_or_else(String::new, |(_, value)| value.trim().to_owned()))
    };
    let processor = after("/proc/cpuinfo", "model name")?;
    let memory = after("/proc/meminfo", "MemTotal")?;
    let memory: f64 = memory.split(' ').next().unwrap_or_default().parse()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cores = available_parallelism()?;
    Ok(format!(
        "{cores} cores of {processor}, {:.0} GB of memory, Linux {}, {}",
        memory * 1024.0 / 1e9,
        kernel.trim(),
        file_system(folder)?
    ))
}

/// Of the mount with the longest name above the folder.
fn file_system(folder: &Path) -> Fallible<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let above = mounts.filter(|(at, _)| folder.starts_with(at));
    let nearest = above.max_by_key(|(at, _)| at.len());
    Ok(nearest.map_or_else(String::new, |(_, kind)| kind.to_owned()))
}

/// What the table has no room for.
pub(crate) fn notes(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let subject = &line.subject;
        let limit = &subject.limit_is;
        let limit = (!limit.is_empty()).then(|| format!("limit: {limit}"));
        let notes: Vec<String> = limit.into_iter().chain(line.notes.clone()).collect();
        if !notes.is_empty() {
            let (row, what, notes) = (subject.row, &subject.what, notes.join(". "));
            text.push_str(&wrapped(&format!("- {row}, {what}: {notes}.")));
        }
    }
    text
}

/// An item of a list in lines of some length.
fn wrapped(item: &str) -> String {
    let (mut text, mut columns) = (String::new(), 0);
    for word in item.split_whitespace() {
        let needed = word.chars().count() + 1;
        if columns + needed > COLUMNS_MAX {
            text.push_str("\n ");
            columns = 1;
        }
        if columns > 0 {
            text.push(' ');
        }
        text.push_str(word);
        columns += needed;
    }
    text + "\n"
}

/// Puts these lines beside the kept ones of other rows.
pub(crate) fn write(lines: Vec<Line>, folder: &Path) -> Fallible<()> {
    let picture = folder.join(PICTURE);
    if picture.exists() {
        fs::copy(picture, here(PICTURE))?;
    }
    let path = here("rows.json");
    let mut all = lines;
    if path.exists() {
        let kept: Vec<Line> = serde_json::from_slice(&fs::read(&path)?)?;
        let measured: BTreeSet<u8> = all.iter().map(|line| line.subject.row).collect();
        let is_other = |line: &Line| !measured.contains(&line.subject.row);
        all.extend(kept.into_iter().filter(is_other));
    }
    all.sort_by_key(|line| line.subject.row);
    fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
    let page = here("README.md");
    let text = fs::read_to_string(&page).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
    fs::write(&page, between(&text, &table(&all)))?;
    Ok(())
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from("\n");
    let mut sources: Vec<&Source> = Vec::new();
    for line in lines {
        if !sources.contains(&&line.source) {
            sources.push(&line.source);
        }
    }
    for source in sources {
        let rows: BTreeSet<u8> = lines
            .iter()
            .filter(|line| line.source == *source)
            .map(|line| line.subject.row)
            .collect();
        let rows: Vec<String> = rows.iter().map(u8::to_string).collect();
        let Source {
            date,
            commit,
            machine,
            command,
        } = source;
        writeln!(text, "Rows {}: `{command}`,", rows.join(", ")).ok();
        writeln!(text, "{date}, commit {commit}, {machine}.\n").ok();
    }
    writeln!(text, "{HEAD}").ok();
    for line in lines {
        writeln!(text, "{line}").ok();
    }
    writeln!(text, "\n{}", notes(lines)).ok();
    if here(PICTURE).exists() {
        writeln!(
            text,
            "![Throughput while the log grows and is trimmed]({PICTURE})\n"
        )
        .ok();
    }
    text
}

/// Replaces what is between the marks; appends them where there are none.
fn between(page: &str, table: &str) -> String {
    let ends = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before.to_owned(), after.to_owned()))
    });
    let (before, after) = ends.unwrap_or_else(|| (format!("{page}\n"), "\n".to_owned()));
    format!("{before}{BEGIN}\n{table}{END}{after}")
}
