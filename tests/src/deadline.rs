//! Waiting for something real to happen, with an end.
#![expect(clippy::disallowed_methods, reason = "guards wait for real processes and packets")]

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How long something takes that is expected to be quick, on a machine that is busy with other tests.
pub const SOON: Duration = Duration::from_secs(10);

/// A point in time after which waiting is pointless.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
}

impl Deadline {
    /// A deadline this far from now.
    pub fn after(duration: Duration) -> Self {
        Self { end: Instant::now() + duration }
    }

    /// Time that is left; zero when it has passed.
    pub fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(&self) -> bool {
        self.remaining().is_zero()
    }
}

/// Asks `ready` until it answers with a value, and fails when it has not within the time.
pub fn until<T>(what: &str, within: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Deadline::after(within);
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if deadline.has_passed() {
            bail!("{what}: not within {within:?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_ends_with_the_value_or_with_the_deadline() {
        let mut rounds = 0;
        let value = until("third round", SOON, || {
            rounds += 1;
            Ok((rounds == 3).then_some(rounds))
        });
        assert_eq!(value.unwrap(), 3);

        let error = until::<()>("nothing", Duration::from_millis(5), || Ok(None)).unwrap_err();
        assert_eq!(error.to_string(), "nothing: not within 5ms");
    }
}
