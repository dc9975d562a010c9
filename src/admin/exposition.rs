//! The text form of metrics: Prometheus' exposition format, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::{Display, Write};

use crate::metrics::{BUCKETS, Counter, Descriptor, Gauge, Histogram, Scale};

/// The media type of a page.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const NEVER_FAILS: &str = "writing to a string cannot fail";

/// Families of numbers, one after the other.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
}

impl Page {
    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Begins a family; its numbers follow.
    pub(super) fn family(&mut self, metric: &'static Descriptor) -> Family<'_> {
        let (name, kind) = (metric.name, metric.kind.name());
        let help = metric.meaning.replace('\\', "\\\\").replace('\n', "\\n");
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(NEVER_FAILS);
        Family {
            text: &mut self.text,
            metric,
        }
    }

    /// A family of one counter.
    pub(super) fn counter(&mut self, metric: &'static Descriptor, counter: &Counter) {
        self.value(metric, counter.value());
    }

    /// A family of one gauge.
    pub(super) fn gauge(&mut self, metric: &'static Descriptor, gauge: &Gauge) {
        self.value(metric, gauge.value());
    }

    /// A family of one number.
    pub(super) fn value(&mut self, metric: &'static Descriptor, value: impl Display) {
        self.family(metric).value(&[], value);
    }
}

/// A family that is being written.
pub(super) struct Family<'a> {
    text: &'a mut String,
    metric: &'static Descriptor,
}

impl Family<'_> {
    /// A number; `labels` are the values of the family's labels, in their order.
    pub(super) fn value(&mut self, labels: &[&str], value: impl Display) {
        self.line("", labels, None, &value);
    }

    /// A distribution.
    pub(super) fn histogram(&mut self, labels: &[&str], scale: Scale, histogram: &Histogram) {
        let (cumulated, count, sum) = histogram.value();
        for (bucket, value) in (0..).zip(cumulated.iter().take(BUCKETS)) {
            let end = in_unit(scale, scale.end(bucket)).to_string();
            self.line("_bucket", labels, Some(&end), value);
        }
        self.line("_bucket", labels, Some("+Inf"), &count);
        self.line("_sum", labels, None, &in_unit(scale, sum));
        self.line("_count", labels, None, &count);
    }

    fn line(&mut self, suffix: &str, labels: &[&str], end: Option<&str>, value: &dyn Display) {
        write!(self.text, "{}{suffix}", self.metric.name).expect(NEVER_FAILS);
        let named = self
            .metric
            .labels
            .iter()
            .copied()
            .zip(labels.iter().copied());
        let end = end.map(|end| ("le", end));
        let mut before = '{';
        for (name, value) in named.chain(end) {
            write!(self.text, "{before}{name}=\"{}\"", escape(value)).expect(NEVER_FAILS);
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        writeln!(self.text, " {value}").expect(NEVER_FAILS);
    }
}

/// Microseconds as seconds; other numbers as they are.
#[expect(
    clippy::cast_precision_loss,
    reason = "the text form's numbers are floating point"
)]
fn in_unit(scale: Scale, value: u64) -> f64 {
    match scale {
        Scale::Micros => value as f64 / 1e6,
        Scale::Count => value as f64,
    }
}

fn escape(value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
    escaped.replace('\n', "\\n")
}
