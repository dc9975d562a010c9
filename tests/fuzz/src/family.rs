//! Decoders that are tried one after the other, each by two threads.

use std::cell::Cell;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fastrand::Rng;

use crate::damage::damage;
use crate::decoder::{Decoder, Refusal};
use crate::tally::Tally;

/// Inputs of each decoder where `FALCON_FUZZ_INPUTS` says nothing.
const INPUTS: u64 = 5_000;
const THREADS: u32 = 2;
/// Inputs that share a pool of valid ones.
const BLOCK: u64 = 1024;
const POOL: usize = 32;
/// Of 256 inputs, this many stay whole.
const WHOLE: u8 = 12;
/// Of 256 damaged inputs, this many get checksums that fit.
const SEALED: u8 = 176;

/// Decoders of one kind of bytes.
#[derive(Clone, Copy)]
pub struct Family<'a> {
    /// Its name.
    pub name: &'static str,
    /// The command that runs its test.
    pub command: &'static str,
    /// All of them.
    pub decoders: &'a [&'a dyn Decoder],
}

impl std::fmt::Debug for Family<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// One decoder and the seed of its inputs.
struct Inputs<'a> {
    decoder: &'a dyn Decoder,
    seed: u64,
}

impl Family<'_> {
    /// Tries `FALCON_FUZZ_INPUTS` inputs on each decoder, made from `FALCON_FUZZ_SEED`; with
    /// `FALCON_FUZZ_DECODER` only on that one, with `FALCON_FUZZ_NTH` only that input.
    ///
    /// Panics, naming the input and the command that replays it, when a decoder panics, breaks a
    /// promise or was only knocked at.
    pub fn run(&self) {
        let seed = from_env("FALCON_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
        let count = from_env("FALCON_FUZZ_INPUTS").unwrap_or(INPUTS);
        let wanted = std::env::var("FALCON_FUZZ_DECODER").ok();
        let is_wanted =
            |decoder: &&&dyn Decoder| wanted.as_deref().is_none_or(|name| name == decoder.name());
        let mut total = Tally::default();
        let mut decoders = 0;
        for decoder in self.decoders.iter().filter(is_wanted) {
            let inputs = Inputs {
                decoder: *decoder,
                seed,
            };
            if let Some(nth) = from_env("FALCON_FUZZ_NTH") {
                inputs.replay(nth);
                continue;
            }
            let tally = self.fuzz(&inputs, count);
            println!("{}: {tally}", decoder.name());
            tally.check(*decoder);
            total.add(&tally);
            decoders += 1;
        }
        let Tally {
            inputs, accepted, ..
        } = total;
        let reasons = total.refused.len();
        println!(
            "figures: decoders={decoders} inputs_per_decoder={count} inputs={inputs} accepted={accepted} \
             refused={} kinds_of_refusal={reasons} panics=0 held_bytes_max={}",
            inputs - accepted,
            total.memory_bytes_max
        );
    }

    fn fuzz(&self, inputs: &Inputs<'_>, count: u64) -> Tally {
        let next = AtomicU64::new(0);
        let mut total = Tally::default();
        let mut failures = Vec::new();
        thread::scope(|scope| {
            let work = || inputs.work(count, &next);
            let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                match worker.join() {
                    Ok(Ok(tally)) => total.add(&tally),
                    Ok(Err(nth)) => failures.push(nth),
                    Err(_) => failures.push(u64::MAX),
                }
            }
        });
        let replays: Vec<String> = failures
            .iter()
            .map(|nth| self.replay(inputs, *nth))
            .collect();
        assert!(replays.is_empty(), "{}", replays.join("\n"));
        total
    }

    fn replay(&self, inputs: &Inputs<'_>, nth: u64) -> String {
        let (name, seed) = (inputs.decoder.name(), inputs.seed);
        format!(
            "{} {name}: input {nth} of seed {seed} failed; replay it alone:\n\
             FALCON_FUZZ_SEED={seed} FALCON_FUZZ_DECODER={name} FALCON_FUZZ_NTH={nth} {} -- --nocapture",
            self.name, self.command
        )
    }
}

impl Inputs<'_> {
    /// Takes blocks until all are done; the number of the input that failed.
    fn work(&self, count: u64, next: &AtomicU64) -> Result<Tally, u64> {
        let at = Cell::new(0);
        let worked = catch_unwind(AssertUnwindSafe(|| {
            let mut tally = Tally::default();
            let mut bytes = Vec::new();
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                let first = block.saturating_mul(BLOCK);
                if first >= count {
                    return tally;
                }
                at.set(first);
                let pool = self.pool(block);
                for nth in first..count.min(first + BLOCK) {
                    at.set(nth);
                    self.make(nth, &pool, &mut bytes);
                    let (verdict, memory) = self.decode(&bytes);
                    tally.note(verdict, memory);
                }
            }
        }));
        worked.map_err(|_| {
            // The others need not go on.
            next.store(count, Ordering::Relaxed);
            at.get()
        })
    }

    fn random(&self, what: u64, nth: u64) -> Rng {
        let mut seed = self.seed ^ what.rotate_left(56);
        for byte in self.decoder.name().bytes() {
            seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // Neighbours must not look alike.
        Rng::with_seed(seed ^ nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Valid inputs for a block.
    fn pool(&self, block: u64) -> Vec<Vec<u8>> {
        let mut random = self.random(1, block);
        let valid = |_| {
            let mut bytes = Vec::new();
            self.decoder.valid(&mut random, &mut bytes);
            bytes
        };
        (0..POOL).map(valid).collect()
    }

    fn make(&self, nth: u64, pool: &[Vec<u8>], bytes: &mut Vec<u8>) {
        let mut random = self.random(2, nth);
        bytes.clear();
        bytes.extend_from_slice(random.choice(pool).map_or(&[], Vec::as_slice));
        if random.u8(..) < WHOLE {
            return;
        }
        let other = random.choice(pool).map_or(&[][..], Vec::as_slice);
        damage(bytes, other, &self.decoder.hints(), &mut random);
        if random.u8(..) < SEALED {
            self.decoder.seal(bytes, &mut random);
        }
    }

    /// The verdict, and the most bytes that were held.
    fn decode(&self, bytes: &[u8]) -> (Result<(), Refusal>, u64) {
        let mut verdict = Ok(());
        let held = allocation_counter::measure(|| {
            verdict = black_box(self.decoder.decode(black_box(bytes)));
        });
        let max = self.decoder.memory_bytes_max(bytes);
        assert!(
            held.bytes_max <= max,
            "{} bytes were held for an input of {}, at most {max} are allowed",
            held.bytes_max,
            bytes.len()
        );
        (verdict, held.bytes_max)
    }

    fn replay(&self, nth: u64) {
        let pool = self.pool(nth / BLOCK);
        let mut bytes = Vec::new();
        self.make(nth, &pool, &mut bytes);
        let name = self.decoder.name();
        println!("{name}, input {nth} of seed {}: {bytes:02x?}", self.seed);
        let (verdict, memory) = self.decode(&bytes);
        println!("{name}: {verdict:?}, held {memory} bytes");
    }
}

/// The number in a variable; nothing where it is not set.
fn from_env(name: &str) -> Option<u64> {
    let given = std::env::var(name).ok()?;
    Some(
        given
            .parse()
            .expect("a variable of the fuzz tests is a number"),
    )
}
