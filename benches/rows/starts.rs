//! Row 13: from the start of the process until the first request is answered, with 10 GB.

use std::thread::sleep;
use std::time::Duration;

use falcon::clock::Instant;
use falcon_client::Client;
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::limits::Fallible;
use crate::limits::cache::{Cold, drop_caches};
use crate::line::{Goal, Line, Round, Subject, Unit};
use crate::load::Stage;
use crate::memory::fill_logs;

/// What happened before.
#[derive(Debug, Clone, Copy)]
enum End {
    Clean,
    Killed,
    IndexDeleted,
}

pub(crate) fn starts(stage: &Stage, broker: &mut Broker) -> Fallible<Vec<Line>> {
    fill_logs(stage, broker)?;
    stage.falcon(broker, "topic create killed")?;
    let ends = [
        (End::Clean, "an orderly stop", 0.2),
        (End::Killed, "SIGKILL under load", 1.5),
        (End::IndexDeleted, "an orderly stop, index deleted", 10.0),
    ];
    let runtime = Runtime::new()?;
    let mut lines = Vec::new();
    for (end, what, most) in ends {
        for is_cold in [false, true] {
            let (mut rounds, mut is_all_dropped) = (Vec::new(), true);
            for _ in 0..stage.rounds {
                make(stage, broker, end)?;
                if is_cold {
                    is_all_dropped &= drop_caches(broker.data())? == Cold::All;
                }
                let begun = Instant::now();
                broker.start_again()?;
                runtime.block_on(first_request(&broker.address))?;
                rounds.push(Round::alone(begun.elapsed().as_secs_f64()));
            }
            let cache = match (is_cold, is_all_dropped) {
                (false, _) => "page cache as it was",
                (true, true) => "page cache dropped",
                (true, false) => "pages of the data folder dropped",
            };
            let what = format!("start with 10 GB after {what}, {cache}");
            let subject = Subject::new(13, &what, Unit::Seconds, Goal::AtMost(most));
            lines.push(subject.line(rounds, Vec::new()));
        }
    }
    Ok(lines)
}

fn make(stage: &Stage, broker: &mut Broker, end: End) -> Fallible<()> {
    match end {
        End::Clean => broker.stop(),
        End::Killed => {
            let _publishing = stage.publishing(broker, "killed", 100)?;
            sleep(Duration::from_millis(500));
            broker.kill()
        }
        End::IndexDeleted => {
            broker.stop()?;
            Ok(std::fs::remove_dir_all(broker.data().join("index"))?)
        }
    }
}

async fn first_request(address: &str) -> Fallible<()> {
    let client = Client::connect(&format!("falcon://{address}")).await?;
    client.list_topics().await?;
    Ok(())
}
