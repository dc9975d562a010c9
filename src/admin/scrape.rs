//! One scrape: every metric of the table, in its order.

use falcon_protocol::{Kind, Offset, PartitionId};

use super::exposition::Page;
use super::status::{Served, Status, summary, topic_name};
use crate::metrics::{
    GroupMetrics, JournalMetrics, Metrics, ProcessMetrics, ReadMetrics, Scale, ServerMetrics,
    WriterMetrics, table,
};
use crate::store::Usage;
use crate::writer::WriteState;

/// LIMIT: damaged ranges in a scrape.
const RANGES_MAX: usize = 100;

/// The whole page. Blocks: it asks the device how much is free.
pub(super) fn scrape(status: &Status) -> String {
    let mut page = Page::default();
    let metrics: &Metrics = &status.metrics;
    let served = status.served();
    process(&mut page, status);
    recovery(&mut page, &metrics.process);
    server(&mut page, &metrics.server);
    in_flight(&mut page, served);
    writer(&mut page, &metrics.writer);
    journal(&mut page, metrics, served);
    reads(&mut page, &metrics.reads, served);
    catalog(&mut page, served);
    groups(&mut page, &metrics.groups);
    page.counter(&table::ADMIN_REQUESTS, &metrics.admin.requests);
    page.counter(&table::ADMIN_REFUSED, &metrics.admin.refused);
    page.counter(&table::ADMIN_LATE, &metrics.admin.late);
    page.into_text()
}

fn process(page: &mut Page, status: &Status) {
    let mut build = page.family(&table::BUILD_INFO);
    build.value(&[env!("CARGO_PKG_VERSION")], 1);
    let started_ms = status.metrics.process.started_ms;
    let (seconds, millis) = (started_ms / 1000, started_ms % 1000);
    page.value(&table::START_TIME, format_args!("{seconds}.{millis:03}"));
    let reasons = status.reasons();
    let is_ready = summary(&reasons) != "not ready";
    page.value(&table::READY, u8::from(is_ready));
    let degraded = reasons.iter().filter(|reason| !reason.is_fatal).count();
    page.value(&table::DEGRADED, degraded);
}

fn recovery(page: &mut Page, process: &ProcessMetrics) {
    let took = std::time::Duration::from_micros(process.recovery_us.value());
    page.value(&table::RECOVERY, took.as_secs_f64());
    let read = &process.recovery_segments_read;
    page.gauge(&table::RECOVERY_SEGMENTS_READ, read);
    page.gauge(&table::RECOVERY_SEGMENTS, &process.recovery_segments);
    page.counter(&table::INDEX_REBUILDS, &process.index_rebuilds);
    page.gauge(&table::INDEX_BY_FOOTERS, &process.index_by_footers);
}

fn server(page: &mut Page, server: &ServerMetrics) {
    page.gauge(&table::CONNECTIONS, &server.open);
    page.counter(&table::CONNECTIONS_ACCEPTED, &server.accepted);
    page.gauge(&table::SUBSCRIPTIONS, &server.subscriptions);
    let mut received = page.family(&table::FRAMES_RECEIVED);
    for kind in Kind::ALL {
        received.value(&[kind.name()], server.frames_received.of(*kind).value());
    }
    received.value(&["unknown"], server.frames_unknown.value());
    let mut sent = page.family(&table::FRAMES_SENT);
    for kind in Kind::ALL {
        sent.value(&[kind.name()], server.frames_sent.of(*kind).value());
    }
    page.counter(&table::BYTES_RECEIVED, &server.bytes_received);
    page.counter(&table::BYTES_SENT, &server.bytes_sent);
    page.counter(&table::RECORDS_DELIVERED, &server.records_delivered);
    let mut times = page.family(&table::REQUEST_SECONDS);
    for kind in Kind::ALL {
        let time = server.request_seconds.of(*kind);
        // Most kinds are answers or never come: twenty lines for each would say nothing.
        if time.value().1 > 0 {
            times.histogram(&[kind.name()], Scale::Micros, time);
        }
    }
    let mut errors = page.family(&table::ERRORS);
    for (code, count) in server.errors.iter() {
        errors.value(&[code.name()], count);
    }
    let mut rejections = page.family(&table::REJECTIONS);
    for (rejection, count) in server.rejections.iter() {
        rejections.value(&[rejection.name()], count);
    }
}

fn in_flight(page: &mut Page, served: Option<&Served>) {
    let (max, free) = served.map_or((0, 0), |served| {
        let free = served.in_flight.available_permits() as u64;
        (served.in_flight_bytes_max, free)
    });
    page.value(&table::IN_FLIGHT, max.saturating_sub(free));
    page.value(&table::IN_FLIGHT_LIMIT, max);
}

fn writer(page: &mut Page, writer: &WriterMetrics) {
    page.counter(&table::BATCHES_ACKED, &writer.batches_acked);
    page.counter(&table::RECORDS_ACKED, &writer.records_acked);
    page.counter(&table::BYTES_ACKED, &writer.bytes_acked);
    page.counter(&table::DUPLICATES, &writer.duplicates);
    let mut waits = page.family(&table::QUEUE_SECONDS);
    waits.histogram(&[], Scale::Micros, &writer.queue_seconds);
    let mut sizes = page.family(&table::GROUP_BATCHES);
    sizes.histogram(&[], Scale::Count, &writer.group_batches);
    page.counter(&table::RECORDS_TRIMMED, &writer.records_trimmed);
}

fn journal(page: &mut Page, metrics: &Metrics, served: Option<&Served>) {
    let state = served.map(|served| served.views.write_state());
    let is = |wanted| u8::from(state == Some(wanted));
    page.value(&table::WRITES_STOPPED, is(WriteState::Stopped));
    page.value(&table::STORAGE_IS_FULL, is(WriteState::Full));
    let journal: &JournalMetrics = &metrics.journal;
    page.counter(&table::GROUPS, &journal.groups);
    page.counter(&table::GROUP_BYTES, &journal.group_bytes);
    let mut syncs = page.family(&table::SYNC_SECONDS);
    syncs.histogram(&[], Scale::Micros, &journal.sync_seconds);
    page.counter(&table::SYNC_FAILURES, &journal.sync_failures);
    page.counter(&table::WRITE_FAILURES, &journal.write_failures);
    page.counter(&table::ROLLS, &journal.rolls);
    page.counter(&table::RECLAIMED, &metrics.reads.segments_reclaimed);
    page.counter(&table::BYTES_COPIED, &journal.bytes_copied);
    page.counter(&table::BYTES_PREPARED, &journal.bytes_prepared);
    let store = served.and_then(|served| served.store.upgrade());
    let usage = store.map_or_else(Usage::default, |store| store.usage());
    page.value(&table::JOURNAL_BYTES, usage.segment_bytes);
    page.value(&table::LIVE_BYTES, served.map_or(0, live_bytes));
    page.value(&table::SEGMENTS, usage.segments);
    page.value(&table::FREE_BYTES, usage.free_bytes);
    let floor = served.map_or(0, |served| served.free_floor_bytes);
    page.value(&table::FREE_FLOOR, floor);
}

fn live_bytes(served: &Served) -> u64 {
    let catalog = served.views.catalog();
    let ids = catalog.topics().flat_map(|topic| topic.partition_ids());
    let views = ids.filter_map(|id| served.views.partition(id));
    views.map(|view| view.bytes()).sum()
}

fn reads(page: &mut Page, reads: &ReadMetrics, served: Option<&Served>) {
    page.counter(&table::CACHE_HITS, &reads.cache_hits);
    page.counter(&table::CACHE_MISSES, &reads.cache_misses);
    let damage = served.map_or_else(Vec::new, Served::damage);
    page.value(&table::DAMAGED_RANGES, damage.len());
    let records = |damage: &crate::store::Damage| damage.range.end.since(damage.range.start);
    let all: u64 = damage.iter().map(records).sum();
    page.value(&table::DAMAGED_RECORDS, all);
    let mut ranges = page.family(&table::DAMAGED_RANGE);
    for range in damage.iter().take(RANGES_MAX) {
        let catalog = served
            .map(|served| served.views.catalog())
            .unwrap_or_default();
        let topic = topic_name(&catalog, range.partition.topic);
        let partition = range.partition.partition.to_string();
        let (from, to) = (range.range.start.to_string(), range.range.end.to_string());
        ranges.value(&[&topic, &partition, &from, &to], records(range));
    }
    page.counter(&table::DAMAGE_FOUND, &reads.damage_found);
}

fn catalog(page: &mut Page, served: Option<&Served>) {
    let catalog = served
        .map(|served| served.views.catalog())
        .unwrap_or_default();
    page.value(&table::TOPICS, catalog.topics().count());
    let partitions: u64 = catalog
        .topics()
        .map(|topic| u64::from(topic.partitions))
        .sum();
    page.value(&table::PARTITIONS, partitions);
    let (rows, all) = served.map_or_else(Default::default, lag);
    page.value(&table::COMMITTED_OFFSETS, all);
    let mut lags = page.family(&table::LAG);
    let mut listed = 0;
    for row in rows {
        let Some(topic) = catalog.by_id(row.id.topic) else {
            continue;
        };
        let partition = row.id.partition.to_string();
        lags.value(&[&row.group, &topic.name, &partition], row.records);
        listed += 1;
    }
    page.value(&table::LAG_LEFT_OUT, all.saturating_sub(listed));
}

fn groups(page: &mut Page, groups: &GroupMetrics) {
    page.gauge(&table::GROUPS_ACTIVE, &groups.active);
    page.gauge(&table::GROUP_MEMBERS, &groups.members);
    page.gauge(&table::OWNERLESS, &groups.ownerless);
    page.counter(&table::REBALANCES, &groups.rebalances);
    page.counter(&table::LET_GO, &groups.let_go);
    page.counter(&table::OVERDUE, &groups.overdue);
}

struct Lag {
    group: String,
    id: PartitionId,
    records: u64,
}

/// The first rows of lag, and how many there are in all.
fn lag(served: &Served) -> (Vec<Lag>, usize) {
    // The writer waits for this guard: nothing but copying is done under it.
    let (rows, all) = {
        let offsets = served.views.offsets();
        let rows = offsets.iter().take(served.lag_series_max);
        let rows = rows.map(|(group, id, committed)| (group.to_owned(), id, committed.offset));
        (rows.collect::<Vec<_>>(), offsets.len())
    };
    let lag = |(group, id, offset): (String, PartitionId, Offset)| {
        let view = served.views.partition(id)?;
        let records = view.high_watermark().0.saturating_sub(offset.0);
        Some(Lag { group, id, records })
    };
    (rows.into_iter().filter_map(lag).collect(), all)
}
