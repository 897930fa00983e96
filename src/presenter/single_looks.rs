//! Who looks once, and waits for what is seen.

use std::collections::VecDeque;
use std::time::Duration;

/// Single looks that were wanted. They are numbered: the watcher says for which number a look began.
///
/// A look may be under way when the next is wanted, which then is another one. More than that need not be told apart: the next look that
/// begins is for all of them.
#[derive(Debug, Default)]
pub(super) struct SingleLooks {
    /// The last one that is over.
    over: u64,
    /// Since when those after it have been waited for, the oldest first.
    waiting: VecDeque<Duration>,
    /// Whether one that was waited for is over, and nobody was told yet.
    has_answer: bool,
}

const MOST: usize = 2;

impl SingleLooks {
    /// The last one that is wanted.
    pub fn wanted(&self) -> u64 {
        self.over + self.waiting.len() as u64
    }

    /// Whether this one is waited for.
    pub fn awaits(&self, number: u64) -> bool {
        self.over < number
    }

    /// One more is.
    pub fn want(&mut self, now: Duration) {
        if self.waiting.len() < MOST {
            self.waiting.push_back(now);
        }
    }

    /// Since when the oldest of those that are not over has been waited for.
    pub fn waits_since(&self) -> Option<Duration> {
        self.waiting.front().copied()
    }

    /// There was a look for all up to this one. Returns whether that is news.
    pub fn answer(&mut self, number: u64) -> bool {
        let mut is_news = false;
        while self.over < number && self.waiting.pop_front().is_some() {
            self.over += 1;
            is_news = true;
        }
        self.has_answer |= is_news;
        is_news
    }

    /// The oldest is not waited for any longer. Returns whether there was one.
    pub fn give_up(&mut self) -> bool {
        self.answer(self.over + 1)
    }

    /// Whether somebody has waited for what is over now.
    pub fn take_answer(&mut self) -> bool {
        std::mem::take(&mut self.has_answer)
    }
}
