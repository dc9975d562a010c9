//! Peers that are hostile, stuck or too many, against the real program.
//!
//! Owns the list of abuses and how one is judged: a fresh broker with small limits; a good client that
//! publishes and reads all the while and must not be told any error; the peak of the broker's memory
//! below what its configuration adds up to; every hostile act met by a refusal, counted by whoever
//! committed it; an orderly stop and no error in the log at the end.
//!
//! Must not know: the broker's code. The bytes on the wire come from the protocol's crate.

mod frames;
mod good;
mod peer;
mod requests;
mod settings;
mod sockets;
mod tables;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use falcon_protocol::Kind;
use falcon_protocol::message::ListTopics;

use crate::error::CrashError;
use crate::history::now_ns;
use crate::process::{Program, free_port};
use crate::trial::{Findings, TrialOptions};
use good::GoodClient;
use peer::Peer;
use settings::Settings;

/// Names of abuses, with commas; all when it is not there.
const ONLY: &str = "FALCON_ABUSE";
/// The good client may wait behind the abuse, but not longer.
const ACK_MS_MAX: u64 = 10_000;

/// One way to abuse a broker.
struct Abuse {
    /// In front of its figures.
    name: &'static str,
    plan: fn(bool) -> Plan,
    run: fn(&mut Siege) -> std::io::Result<()>,
}

/// What an abuse needs, and what it may cost.
#[derive(Debug, Clone, Copy)]
struct Plan {
    settings: Settings,
    /// What peers may make the broker hold beside what all brokers do, from limits alone.
    held_bytes: u64,
    /// Longest the good client may wait for an ack.
    ack_ms_max: u64,
}

impl Plan {
    const fn new(settings: Settings, held_bytes: u64) -> Self {
        Self {
            settings,
            held_bytes,
            ack_ms_max: ACK_MS_MAX,
        }
    }
}

/// An abuse under way.
#[derive(Debug)]
struct Siege {
    address: SocketAddr,
    settings: Settings,
    is_long: bool,
    /// Acts that must be refused.
    acts: u64,
    /// Refusals that came back.
    rejected: u64,
    /// What else must not have happened.
    broken: Vec<String>,
}

const ABUSES: &[Abuse] = &[
    Abuse {
        name: "slow_loris",
        plan: sockets::slow_loris_plan,
        run: sockets::slow_loris,
    },
    Abuse {
        name: "half_open",
        plan: sockets::half_open_plan,
        run: sockets::half_open,
    },
    Abuse {
        name: "idle_connections",
        plan: sockets::idle_plan,
        run: sockets::idle,
    },
    Abuse {
        name: "bad_handshakes",
        plan: sockets::bad_handshakes_plan,
        run: sockets::bad_handshakes,
    },
    Abuse {
        name: "kept_buffers",
        plan: frames::kept_buffers_plan,
        run: frames::kept_buffers,
    },
    Abuse {
        name: "slow_bodies",
        plan: frames::slow_bodies_plan,
        run: frames::slow_bodies,
    },
    Abuse {
        name: "bad_frames",
        plan: frames::bad_frames_plan,
        run: frames::bad_frames,
    },
    Abuse {
        name: "bombs",
        plan: frames::bombs_plan,
        run: frames::bombs,
    },
    Abuse {
        name: "deaf_peers",
        plan: requests::deaf_plan,
        run: requests::deaf,
    },
    Abuse {
        name: "credit",
        plan: requests::credit_plan,
        run: requests::credit,
    },
    Abuse {
        name: "subscriptions",
        plan: requests::subscriptions_plan,
        run: requests::subscriptions,
    },
    Abuse {
        name: "long_polls",
        plan: requests::long_polls_plan,
        run: requests::long_polls,
    },
    Abuse {
        name: "names",
        plan: tables::names_plan,
        run: tables::names,
    },
    Abuse {
        name: "topics",
        plan: tables::topics_plan,
        run: tables::topics,
    },
    Abuse {
        name: "offsets",
        plan: tables::offsets_plan,
        run: tables::offsets,
    },
    Abuse {
        name: "producers",
        plan: tables::producers_plan,
        run: tables::producers,
    },
];

/// All abuses, each against a broker of its own.
pub(crate) fn run(options: &TrialOptions) -> Result<Findings, CrashError> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let is_wanted = |abuse: &&Abuse| only.is_empty() || only.split(',').any(|n| n == abuse.name);
    let mut findings = Findings::default();
    fastrand::seed(options.seed);
    for abuse in ABUSES.iter().filter(is_wanted) {
        besiege(abuse, options, &mut findings)?;
    }
    Ok(findings)
}

fn besiege(
    abuse: &Abuse,
    options: &TrialOptions,
    findings: &mut Findings,
) -> Result<(), CrashError> {
    let name = abuse.name;
    let plan = (abuse.plan)(options.is_long);
    let program = Program {
        path: options.program.clone(),
        data_dir: options.folder.join(name),
        log: options.folder.join(format!("{name}.log")),
        environment: plan.settings.environment(),
        port: free_port()?,
    };
    let broker = program.start()?;
    if broker.wait_ready().is_none() {
        return Err(CrashError::Program(format!("{name}: it did not start")));
    }
    let good = GoodClient::start(program.address())?;
    let mut siege = Siege {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, program.port)),
        settings: plan.settings,
        is_long: options.is_long,
        acts: 0,
        rejected: 0,
        broken: Vec::new(),
    };
    let begun = now_ns();
    if let Err(error) = (abuse.run)(&mut siege) {
        siege.broken.push(format!("a peer was let down: {error}"));
    }
    let took = Duration::from_nanos(now_ns().saturating_sub(begun));
    if let Err(error) = siege.assert_serves() {
        siege
            .broken
            .push(format!("nobody is served any more: {error}"));
    }
    let served = good.finish();
    let peak = broker.peak_rss_bytes();
    if !broker.stop() {
        siege.broken.push("it did not stop in order".to_owned());
    }
    let log = program.read_log();
    let errors = log.lines().filter(|line| line.contains(" ERROR "));
    siege.broken.extend(errors.map(str::to_owned));
    let bound = plan.settings.bound_bytes(plan.held_bytes);
    let mut figure = |what: &str, value| findings.figure(&format!("{name}_{what}"), value);
    figure("rss_peak_bytes", peak);
    figure("rss_bound_bytes", bound);
    figure("acts", siege.acts);
    figure("rejected", siege.rejected);
    figure("ms", u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    match served {
        Ok(served) => {
            figure("good_client_acked", served.acked);
            figure("good_client_read", served.read);
            figure("good_client_ack_ms_max", served.ack_ms_max);
            if served.ack_ms_max > plan.ack_ms_max {
                let text = format!("the good client waited {} ms", served.ack_ms_max);
                siege.broken.push(text);
            }
        }
        Err(error) => siege
            .broken
            .push(format!("the good client was let down: {error}")),
    }
    if !(1..bound).contains(&peak) {
        let text = format!("{peak} bytes of memory, bound is {bound}");
        siege.broken.push(text);
    }
    if siege.acts == 0 || siege.rejected != siege.acts {
        let (acts, rejected) = (siege.acts, siege.rejected);
        let text = format!("{rejected} refusals for {acts} hostile acts");
        siege.broken.push(text);
    }
    let broken = siege.broken.into_iter();
    findings
        .broken
        .extend(broken.map(|what| format!("{name}: {what}")));
    Ok(())
}

impl Siege {
    /// Short or long.
    fn count<T>(&self, short: T, long: T) -> T {
        if self.is_long { long } else { short }
    }

    /// Commits one act on a connection of its own; it must be answered with a refusal.
    fn act(&mut self, peer: &mut Peer) -> std::io::Result<()> {
        self.acts += 1;
        if peer.refusal()?.is_some() {
            self.rejected += 1;
        }
        Ok(())
    }

    /// Waits until the broker has told every peer why it ends; those count as rejected.
    fn await_ends(&mut self, mut peers: Vec<Peer>, mut each: impl FnMut(usize, &mut Peer)) {
        let deadline = now_ns() + self.count(20, 120) * 1_000_000_000;
        let mut left: Vec<(usize, Peer)> = peers.drain(..).enumerate().collect();
        while !left.is_empty() && now_ns() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            left.retain_mut(|(number, peer)| {
                if !peer.is_told().unwrap_or(true) {
                    each(*number, peer);
                    return true;
                }
                match peer.refusal() {
                    Ok(Some(_)) => self.rejected += 1,
                    Ok(None) => self
                        .broken
                        .push("a peer was ended without a word".to_owned()),
                    Err(error) => self.broken.push(format!("a peer was ended: {error}")),
                }
                false
            });
        }
        if !left.is_empty() {
            let text = format!("{} peers were never ended", left.len());
            self.broken.push(text);
        }
    }

    /// A newcomer is served.
    fn assert_serves(&self) -> std::io::Result<()> {
        let request = ListTopics {
            after: None,
            rows_max: 1,
        };
        let deadline = now_ns() + 10_000_000_000;
        loop {
            // Places of peers that have gone come back once the broker has noticed.
            let asked = Peer::greeted(self.address);
            match asked.and_then(|mut peer| peer.ask(Kind::ListTopics, &request)) {
                Ok(answer) if answer.error().is_none() => return Ok(()),
                Ok(answer) => {
                    return Err(std::io::Error::other(format!("{:?}", answer.error())));
                }
                Err(error) if now_ns() > deadline => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}
