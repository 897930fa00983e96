//! One-shot refreshes (`screendump`, a VNC client that connects), which wait for a poll.

use std::collections::VecDeque;
use std::time::Duration;

/// The one-shot refreshes that wait. They are numbered: the watcher says up to which number a poll
/// began.
///
/// The console cannot tell them apart: one answer ends them all. So it is told when there was a
/// poll for all of them, or when one has waited long enough.
#[derive(Debug, Default)]
pub(super) struct OneShots {
    /// The last one that was wanted.
    wanted: u64,
    /// The last one that was answered.
    over: u64,
    /// Those in between, the oldest first.
    waiting: VecDeque<Waiting>,
    /// Since when the oldest of those answered had been waiting, if the console does not know yet.
    unreported: Option<Duration>,
}

/// Those up to this number, the first of which has been waiting since then.
#[derive(Debug)]
struct Waiting {
    number: u64,
    since: Duration,
}

/// A poll may be under way when one is wanted, which then needs the next poll. Later ones need not
/// be told apart: they, too, need a poll that has not begun.
const MOST: usize = 2;

impl OneShots {
    /// Returns the number of the last one wanted.
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Whether this one is waiting.
    pub fn awaits(&self, number: u64) -> bool {
        self.over < number
    }

    /// Adds one.
    pub fn want(&mut self, now: Duration) {
        self.wanted += 1;
        if self.waiting.len() < MOST {
            self.waiting.push_back(Waiting { number: self.wanted, since: now });
        } else if let Some(last) = self.waiting.back_mut() {
            last.number = self.wanted;
        }
    }

    /// Returns since when the oldest has been waiting.
    pub fn waits_since(&self) -> Option<Duration> {
        self.unreported.or_else(|| self.waiting.front().map(|oldest| oldest.since))
    }

    /// A poll answers all up to this one. Returns whether any was waiting.
    pub fn answer(&mut self, number: u64) -> bool {
        self.over = self.over.max(number);
        let mut is_news = false;
        while let Some(oldest) = self.waiting.front().filter(|oldest| oldest.number <= number) {
            self.unreported.get_or_insert(oldest.since);
            self.waiting.pop_front();
            is_news = true;
        }
        is_news
    }

    /// Ends the wait of all. Returns whether any was waiting.
    pub fn give_up(&mut self) -> bool {
        self.answer(self.wanted)
    }

    /// Returns, once, whether the console is to be told.
    pub fn take_answer(&mut self) -> bool {
        self.waiting.is_empty() && self.unreported.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn nobody_is_told_before_there_was_a_poll_that_began_after_he_wanted_it() {
        let mut polls = OneShots::default();
        polls.want(at(0));
        let began = polls.wanted();
        polls.want(at(1));
        assert!(polls.answer(began), "there was a poll for the first");
        assert!(!polls.take_answer(), "but telling him would tell the second");
        assert_eq!(polls.waits_since(), Some(at(0)), "he still waits");
        assert!(polls.answer(polls.wanted()));
        assert!(polls.take_answer());
        assert!(!polls.take_answer(), "once");
    }

    #[test]
    fn a_third_has_a_poll_of_its_own_while_one_for_two_is_under_way() {
        let mut polls = OneShots::default();
        polls.want(at(0));
        polls.want(at(1));
        let began = polls.wanted();
        polls.want(at(2));
        polls.answer(began);
        assert!(polls.waits_since().is_some());
        assert!(!polls.take_answer());
        assert!(polls.awaits(polls.wanted()));
        polls.answer(polls.wanted());
        assert!(polls.take_answer());
    }

    #[test]
    fn who_has_waited_for_long_enough_is_told_whoever_else_waits() {
        let mut polls = OneShots::default();
        assert!(!polls.give_up(), "nobody waits");
        polls.want(at(0));
        polls.want(at(99));
        assert!(polls.give_up());
        assert!(polls.take_answer());
        assert_eq!(polls.waits_since(), None);
    }
}
