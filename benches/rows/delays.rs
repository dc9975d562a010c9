//! Rows 4 and 5: how long a publish takes, and until a subscriber has it.

use crate::broker::Broker;
use crate::limit::Ack;
use crate::limits::Fallible;
use crate::limits::samples::median;
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::Stage;

/// One publish at a time.
pub(crate) fn acks(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let (mut middle, mut tail) = (Vec::new(), Vec::new());
    let mut parts: [Vec<f64>; 4] = Default::default();
    for _ in 0..stage.rounds {
        let limit = Ack::measure(stage, 4 << 10)?;
        let echo = limit.echo(stage)?;
        let ack = stage.warm(broker, "latency")?.ack()?;
        middle.push(Round::new(limit.p50_us(), ack.p50_us));
        tail.push(Round::new(limit.p99_us(), ack.p99_us));
        let (trips, write) = (limit.trips, limit.write.summary);
        let all = [write, trips.blocking, trips.tokio, echo];
        for (part, of) in parts.iter_mut().zip(all) {
            part.push(of.p50_us);
        }
    }
    let [write, blocking, tokio, echo] = parts.map(|part| median(&part));
    let note = format!(
        "write + fdatasync {write:.0} us, round trip {blocking:.0} us with blocking sockets, {tokio:.0} us with \
         tokio; the shortest program that answers after its write + fdatasync: {echo:.0} us (p50)"
    );
    let line = |what, goal, limit, rounds, notes| {
        let subject = Subject::new(4, what, Unit::Micros, goal);
        subject.against(limit).line(rounds, notes)
    };
    Ok(vec![
        line(
            "one publish of 100 B at a time, p50",
            Goal::RatioAtMost(1.25),
            "best 4 KiB write + fdatasync and a round trip of blocking sockets, p50 each",
            middle,
            vec![note],
        ),
        line(
            "one publish of 100 B at a time, p99",
            Goal::RatioAtMost(2.0),
            "the same, p99 each",
            tail,
            Vec::new(),
        ),
    ])
}

/// From a publish to a subscriber.
pub(crate) fn deliveries(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    let (mut rounds, mut tails) = (Vec::new(), Vec::new());
    let (mut floors, mut above) = (Vec::new(), Vec::new());
    for _ in 0..stage.rounds {
        let floor = Ack::measure(stage, 4 << 10)?.delivery(stage)?.p50_us;
        let ack = stage.warm(broker, "latency")?.ack()?;
        let ran = stage.warm(broker, "latency --rate 1000 --delivery")?;
        let delivery = ran.delivery()?;
        rounds.push(Round::new(ack.p50_us, delivery.p50_us));
        tails.push(delivery.p99_us);
        above.push(delivery.p50_us / floor);
        floors.push(floor);
    }
    let what = "publish to subscriber at 1,000/s, 100 B, p50";
    let subject = Subject::new(5, what, Unit::Micros, Goal::RatioAtMost(1.15));
    let note = format!(
        "p99 {:.0} us; the shortest program that writes, syncs and then sends to another socket, at the same pace: \
         {:.0} us (p50), of which this is {:.2} times",
        median(&tails),
        median(&floors),
        median(&above)
    );
    let line = subject.against("row 4's p50, in the same round");
    Ok(vec![line.line(rounds, vec![note])])
}
