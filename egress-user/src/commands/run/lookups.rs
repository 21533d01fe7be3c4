//! Questions about names that are on their way.

use std::collections::VecDeque;

use tokio::task::JoinSet;

use crate::dns::{
    question::{Asked, Outcome},
    resolver::Resolver,
};

/// Questions at once. Ten thousand names at 20 ms each are asked for within seconds, and no name server is flooded.
const AT_ONCE: usize = 64;

/// Asks for names, a bounded number at once.
#[derive(Debug)]
pub(super) struct Lookups {
    resolver: Resolver,
    waiting: VecDeque<Asked>,
    running: JoinSet<(Asked, Outcome)>,
}

impl Lookups {
    pub(super) fn new(resolver: Resolver) -> Self {
        Self { resolver, waiting: VecDeque::new(), running: JoinSet::new() }
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        self.waiting.push_back(asked);
        self.fill();
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// The next answer; never, while nothing is on its way. Nothing is lost when this is dropped half way.
    pub(super) async fn next(&mut self) -> (Asked, Outcome) {
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => {
                    self.fill();
                    return answer;
                }
                Some(Err(error)) => tracing::warn!(%error, "a question about a name was given up"),
                None => std::future::pending().await,
            }
        }
    }

    fn fill(&mut self) {
        while self.running.len() < AT_ONCE
            && let Some(asked) = self.waiting.pop_front()
        {
            let resolver = self.resolver.clone();
            self.running.spawn(async move {
                let outcome = resolver.ask(&asked).await;
                (asked, outcome)
            });
        }
    }
}
