//! Stops, kills and starts with no byte free.

use super::{Broker, CrashError, Full, Ledger, Program, Published, Way, connect, start};

impl Full<'_> {
    /// Stops, kills and starts with no byte free, the log on the same disk.
    pub(super) fn at_zero(
        &mut self,
        program: &Program,
        restarts: u32,
        mut ledger: Ledger,
    ) -> Result<(), CrashError> {
        let program = Program {
            log: self.volume.path().join("broker.log"),
            ..program.clone()
        };
        for name in [
            "starts_at_zero_free",
            "stops_at_zero_free",
            "kills_at_zero_free",
        ] {
            self.findings.figure(name, 0);
        }
        let mut broker = start(&program)?;
        for _ in 0..restarts {
            self.go_on(&program, &mut ledger)?;
            self.until(&mut ledger, &Published::Acked, Way::Stranger);
            let stranger = self.volume.fill()?;
            self.until(&mut ledger, &Published::Full, Way::Stranger);
            let free = self.volume.free_bytes()?;
            self.findings
                .expect(free == 0, || format!("{free} bytes are free, want none"));
            self.findings.expect(broker.stop(), || {
                "a broker did not stop in order with no byte free".into()
            });
            self.add("stops_at_zero_free", 1);
            broker = self.start_at_zero(&program, &mut ledger)?;
            broker.kill();
            self.add("kills_at_zero_free", 1);
            broker = self.start_at_zero(&program, &mut ledger)?;
            drop(stranger);
            self.until(&mut ledger, &Published::Acked, Way::Stranger);
        }
        self.compare(&ledger);
        self.findings
            .expect(broker.stop(), || "the last broker did not stop".into());
        self.judge_log(&program);
        Ok(())
    }

    fn start_at_zero(
        &mut self,
        program: &Program,
        ledger: &mut Ledger,
    ) -> Result<Broker, CrashError> {
        let broker = start(program)?;
        self.add("starts_at_zero_free", 1);
        self.go_on(program, ledger)?;
        self.compare(ledger);
        Ok(broker)
    }

    /// With a new connection and, where a full disk lets one have it, a new publisher.
    fn go_on(&mut self, program: &Program, ledger: &mut Ledger) -> Result<(), CrashError> {
        let client = self.runtime.block_on(connect(program))?;
        if let Err(error) = self.runtime.block_on(ledger.reconnect(&client)) {
            self.findings.broken.push(format!("no publisher: {error}"));
        }
        Ok(())
    }
}
