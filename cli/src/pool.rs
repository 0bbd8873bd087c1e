//! Opening the pool that somebody named.

use std::sync::Arc;
use std::time::Duration;

use lsvd_store::{
    Environment, ObjectStore, PoolError, PoolSpec, PoolTarget, RetryPolicy, RetryingStore,
};

use crate::talk::Talk;

/// Longest time that a person should wait for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to do about a pool that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenMissing {
    /// It is an error.
    Refuse,
    /// Make it, and say so.
    Create,
}

/// An open pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The store, behind retries of what may pass.
    pub store: Arc<dyn ObjectStore>,
    /// Where it is.
    pub target: PoolTarget,
}

impl Pool {
    /// Understands a pool's name, says what was understood, and opens it.
    ///
    /// # Errors
    /// The name is not understood, or the pool cannot be opened. Each is a complete sentence.
    pub fn open(
        text: &str,
        environment: &Environment,
        missing: WhenMissing,
        talk: Talk,
    ) -> Result<Self, PoolError> {
        let spec = PoolSpec::parse(text, environment)?;
        talk.say(&spec.explain());
        let store = match spec.open(false) {
            Err(PoolError::NotFound { .. }) if missing == WhenMissing::Create => {
                let store = spec.open(true)?;
                talk.warn(&format!("there was no such pool; made {}", spec.target()));
                store
            }
            opened => opened?,
        };
        let policy = RetryPolicy { deadline: PATIENCE, ..RetryPolicy::default() };
        let store = Arc::new(RetryingStore::new(store, policy));
        Ok(Self { store, target: spec.target().clone() })
    }
}
