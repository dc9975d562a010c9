//! A strict reader of Prometheus' text format, version 0.0.4, that shares no code with the broker.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    /// Families and their types, in order.
    pub(crate) families: Vec<(String, String)>,
    /// `name{label="value"}` as written -> number.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    /// Reads a page, or panics with the line that is wrong.
    pub(crate) fn parse(page: &str) -> Self {
        assert!(page.ends_with('\n'), "the last line has no end");
        let mut scrape = Self::default();
        let mut helped = None;
        let mut seen = BTreeSet::new();
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a name and a text");
                assert!(is_name(name) && !text.is_empty(), "{line}");
                assert!(seen.insert(name.to_owned()), "{line}: a second time");
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a type");
                assert_eq!(
                    helped.take().as_deref(),
                    Some(name),
                    "{line}: no help before"
                );
                let kinds = ["counter", "gauge", "histogram"];
                assert!(kinds.contains(&kind), "{line}");
                scrape.families.push((name.to_owned(), kind.to_owned()));
            } else {
                assert!(helped.is_none(), "{line}: no type before");
                scrape.sample(line);
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn sample(&mut self, line: &str) {
        let name_end = line.find(['{', ' ']).expect(line);
        let (name, rest) = line.split_at(name_end);
        let labels_end = read_labels(rest);
        let (labels, number) = rest.split_at(labels_end);
        let number = number.strip_prefix(' ').expect(line);
        let number: f64 = number.parse().expect(line);
        let (family, kind) = self.families.last().expect("a family before");
        let suffix = name.strip_prefix(family.as_str()).expect(line);
        let allowed: &[&str] = match kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(allowed.contains(&suffix), "{line} is in family {family}");
        assert!(number.is_finite() && number >= 0.0, "{line}");
        let key = format!("{name}{labels}");
        assert!(self.samples.insert(key, number).is_none(), "{line}: twice");
    }

    /// Buckets grow, and the last one is the count.
    fn check_histograms(&self) {
        for (family, _) in self.families.iter().filter(|(_, kind)| kind == "histogram") {
            let mut rows: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            let bucket = format!("{family}_bucket{{");
            for (key, count) in self.samples.range(bucket.clone()..) {
                let Some(labels) = key.strip_prefix(&bucket) else {
                    break;
                };
                let (others, end) = labels.split_once("le=\"").expect("an end");
                let end = end.trim_end_matches("\"}").replace("+Inf", "inf");
                let end = end.parse().expect("a number");
                let others = others.trim_end_matches(',').to_owned();
                rows.entry(others).or_default().push((end, *count));
            }
            for (labels, mut buckets) in rows {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.is_sorted_by_key(|(_, count)| *count),
                    "{family} {labels}"
                );
                let (end, all) = *buckets.last().expect("not empty");
                assert!(end.is_infinite(), "{family} {labels}");
                let braces = if labels.is_empty() {
                    String::new()
                } else {
                    format!("{{{labels}}}")
                };
                let count = self.samples.get(&format!("{family}_count{braces}"));
                assert_eq!(count, Some(&all), "{family} {labels}");
                assert!(self.samples.contains_key(&format!("{family}_sum{braces}")));
            }
        }
    }

    /// The number of a series, which must be there.
    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let number = self.samples.get(series).copied();
        number.unwrap_or_else(|| panic!("there is no {series}"))
    }

    /// Series whose text begins so.
    pub(crate) fn beginning(&self, start: &str) -> Vec<&str> {
        let keys = self.samples.keys().map(String::as_str);
        keys.filter(|key| key.starts_with(start)).collect()
    }
}

/// Where the labels end; 0 when there are none.
fn read_labels(rest: &str) -> usize {
    let Some(mut left) = rest.strip_prefix('{') else {
        return 0;
    };
    loop {
        let (name, value) = left.split_once("=\"").expect(rest);
        assert!(is_name(name) && !name.contains(':'), "{rest}");
        let mut is_escaped = false;
        let end = value.find(|c: char| {
            if is_escaped {
                assert!(['\\', '"', 'n'].contains(&c), "{rest}");
                is_escaped = false;
                return false;
            }
            is_escaped = c == '\\';
            c == '"'
        });
        left = &value[end.expect(rest) + 1..];
        match left.chars().next() {
            Some(',') => left = &left[1..],
            Some('}') => return rest.len() - left.len() + 1,
            other => panic!("{other:?} in {rest}"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a b\n# TYPE a gauge\na{x=\"1\\\"}\"} 2\n";
    assert!((Scrape::parse(good).get("a{x=\"1\\\"}\"}") - 2.0).abs() < 0.1);
    for bad in [
        "a 1\n",
        "# TYPE a gauge\na 1\n",
        "# HELP a b\n# TYPE a gauge\na 1",
        "# HELP a b\n# TYPE a gauge\na 1\na 1\n",
        "# HELP a b\n# TYPE a gauge\nb 1\n",
        "# HELP a b\n# TYPE a gauge\na{x=1} 1\n",
        "# HELP a b\n# TYPE a gauge\na NaN\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 2\n",
        "# HELP a b\n# TYPE a histogram\na_bucket{le=\"1\"} 3\na_bucket{le=\"+Inf\"} 2\na_sum 1\na_count 2\n",
    ] {
        let parsed = std::panic::catch_unwind(|| Scrape::parse(bad));
        assert!(parsed.is_err(), "{bad}");
    }
}
