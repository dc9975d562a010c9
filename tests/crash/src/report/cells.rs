//! Text that fits into Markdown.

use crate::campaign::Status;

pub(super) fn header(names: &[&str]) -> Vec<String> {
    let rule = vec!["---"; names.len()].join("|");
    vec![row(names), format!("|{rule}|")]
}

pub(super) fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    format!("| {} |", cells.join(" | "))
}

/// Text that stays in one cell.
pub(super) fn cell(text: &str) -> String {
    let line: Vec<&str> = text.split_whitespace().collect();
    line.join(" ").replace('|', "\\|")
}

/// `acks_after_failure` -> `acks after failure`.
pub(super) fn plain(name: &str) -> String {
    name.replace('_', " ")
}

/// `1234567` -> `1,234,567`.
pub(super) fn count(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `24684084 kB` -> `23 GiB`; as it is when it is something else.
pub(super) fn memory(text: &str) -> String {
    let kibibytes = text
        .strip_suffix(" kB")
        .and_then(|digits| digits.parse::<u64>().ok());
    kibibytes.map_or_else(
        || text.to_owned(),
        |kibibytes| format!("{} GiB", kibibytes >> 20),
    )
}

/// A figure; bytes in MiB when there are many.
pub(super) fn figure(name: &str, value: u64) -> String {
    let mebibytes = value >> 20;
    if name.ends_with("_bytes") && mebibytes > 0 {
        return format!("{} MiB", count(mebibytes));
    }
    count(value)
}

/// How it ended, and why when not well.
pub(super) fn verdict(status: Status, reason: Option<&str>) -> String {
    let said = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    match status {
        Status::Passed => "passed".to_owned(),
        Status::Failed => format!("**FAILED**{said}"),
        Status::Skipped => format!("skipped{said}"),
    }
}
