//! When to poll the device, so that a flip is seen when it happens and not when a front end's timer
//! fires.
//!
//! Few devices signal when the guest flips (see `events`), but polling them costs little. While one
//! flip follows another, the device is polled often, until they have a rhythm that predicts the next:
//! from then on it is polled just before a flip is due, and again in short steps until it has come.
//! Flips without a rhythm are polled for a while, and then left to the front ends' timers for
//! longer and longer; so is a guest that does not flip.
//!
//! The device is not polled while no front end refreshes.

use std::time::Duration;

use crate::plane::PlaneInfo;

/// Front ends that refresh less often than this (QEMU's idle ones do every 3 s) have no viewer.
pub const ATTENTION: Duration = Duration::from_millis(3500);

/// Poll interval while nothing flips: a front end's timer may have slowed down as well.
const IDLE_STEP: Duration = Duration::from_millis(100);

/// Poll interval while the rhythm is being learned.
const SEARCH_STEP: Duration = Duration::from_millis(1);

/// A guest that has not flipped for this long has stopped.
const QUIET: Duration = Duration::from_millis(300);

/// Maximum number of polls spent looking for a rhythm. Fewer than 10 flips a second are not worth
/// it.
const SEARCH_POLLS: u32 = 500;

/// How long flips without a rhythm are ignored the first time; each time is twice as long, up to
/// [`LONGEST_REST`].
const SHORTEST_REST: Duration = Duration::from_secs(1);

/// See [`SHORTEST_REST`].
const LONGEST_REST: Duration = Duration::from_secs(16);

/// Number of flips in a row that must have a rhythm.
const EVIDENCE: usize = 5;

/// A rhythm that lasted this many periods was no accident.
const PROBATION: u32 = 32;

/// The time of a flip is known if it happened between two polls at most this far apart.
const PRECISE: Duration = Duration::from_micros(2500);

/// No front end shows more than 250 pictures a second.
pub const SHORTEST_PERIOD: Duration = Duration::from_millis(4);

/// The first poll comes this long before the flip is due: its time is known only if a poll just
/// before did not see it.
const LEAD: Duration = Duration::from_micros(250);

/// Minimum poll interval while a flip is due: flips that jitter are not worth polling more often.
const STEP: Duration = Duration::from_micros(500);

/// After this many surprises there is no rhythm any more. A flip that did not come counts two, one
/// that came between polls counts one, and one that came when it was due makes up for one: if the
/// rhythm is twice too fast, every other flip does not come.
const SURPRISES: u32 = 12;

/// In one period of this many, there is a poll halfway, to notice a guest that flips twice as fast.
const HALFWAY_PERIODS: u32 = 16;

/// Decides when to poll next.
#[derive(Debug, Default)]
pub struct Pacer {
    /// Somebody is assumed to watch until then.
    attention: Duration,
    /// No polls before this: as long as showing the last picture took.
    free: Duration,
    seen: Option<PlaneInfo>,
    last_flip: Option<Duration>,
    last_poll: Duration,
    /// When a front end last released the picture: there were no polls until then.
    released: Duration,
    rest: Duration,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Searching {
        /// The last flips.
        flips: Vec<Flip>,
        polls: u32,
    },
    Resting {
        until: Duration,
    },
    Locked(Rhythm),
}

/// It happened within half of `blind` of this time.
#[derive(Debug)]
struct Flip {
    time: Duration,
    blind: Duration,
}

#[derive(Debug)]
struct Rhythm {
    period: Duration,
    /// When the next flip is due.
    due: Duration,
    /// How far flips are from when they are due, on average.
    jitter: Duration,
    periods: u32,
    surprises: u32,
}

impl Pacer {
    /// A front end refreshed, which took this long.
    pub fn refreshed(&mut self, now: Duration, took: Duration) {
        self.attention = now + ATTENTION;
        self.free = now + took;
    }

    /// A front end has released the picture.
    pub fn released(&mut self, now: Duration) {
        self.released = now;
    }

    /// A poll found this plane, `None` if it is off. Returns whether that has changed since the
    /// last poll.
    pub fn poll(&mut self, now: Duration, shows: Option<&PlaneInfo>) -> bool {
        let blind = now.saturating_sub(self.last_poll);
        self.last_poll = now;
        let changed = self.seen.as_ref() != shows;
        // A plane that goes on or off is no flip.
        let flipped = changed && self.seen.is_some() && shows.is_some();
        if changed {
            self.seen = shows.copied();
        }
        let state = std::mem::take(&mut self.state);
        self.state = self.follow(state, now, flipped, blind);
        changed
    }

    /// The device did not answer: forgets what was learned.
    pub fn lose(&mut self, now: Duration) {
        self.last_poll = now;
        self.state = State::Idle;
    }

    /// Returns when to poll again; `None` if nobody watches.
    pub fn next_poll(&self, now: Duration) -> Option<Duration> {
        let next = match &self.state {
            State::Idle | State::Resting { .. } => self.last_poll + IDLE_STEP,
            State::Searching { .. } => self.last_poll + SEARCH_STEP,
            State::Locked(rhythm) => rhythm.next_poll(self.last_poll),
        };
        (now < self.attention).then_some(next.max(self.free))
    }

    /// Returns the time between flips, if they have a rhythm.
    pub fn period(&self) -> Option<Duration> {
        match &self.state {
            State::Locked(rhythm) => Some(rhythm.period),
            _ => None,
        }
    }

    /// Whether the guest has not flipped for a while.
    fn is_quiet(&self, now: Duration) -> bool {
        self.last_flip.is_none_or(|last| now.saturating_sub(last) > QUIET)
    }

    /// Follows one poll. `blind`: the time since the poll before.
    fn follow(&mut self, state: State, now: Duration, flipped: bool, blind: Duration) -> State {
        // One flip alone, as when a clock or a caret is drawn, has no rhythm.
        let moves = flipped && !self.is_quiet(now);
        if flipped {
            self.last_flip = Some(now);
        }
        match state {
            State::Idle if moves => search(),
            State::Resting { until } if moves && now >= until => search(),
            State::Idle | State::Resting { .. } => state,
            State::Searching { mut flips, polls } => {
                if flipped {
                    flips.push(Flip { time: now.saturating_sub(blind / 2), blind });
                }
                if flips.len() > EVIDENCE {
                    flips.remove(0);
                }
                if let Some(rhythm) = Rhythm::of(&flips, now) {
                    State::Locked(rhythm)
                } else if self.is_quiet(now) {
                    State::Idle
                } else if polls >= SEARCH_POLLS {
                    self.rest = (self.rest * 2).clamp(SHORTEST_REST, LONGEST_REST);
                    State::Resting { until: now + self.rest }
                } else {
                    State::Searching { flips, polls: polls + 1 }
                }
            }
            State::Locked(mut rhythm) => {
                rhythm.follow(now, flipped, blind, self.released);
                if rhythm.periods >= PROBATION {
                    self.rest = Duration::ZERO;
                }
                if rhythm.surprises < SURPRISES {
                    State::Locked(rhythm)
                } else if flipped {
                    search()
                } else {
                    State::Idle
                }
            }
        }
    }
}

fn search() -> State {
    State::Searching { flips: Vec::new(), polls: 0 }
}

impl Rhythm {
    /// Finds the rhythm of these flips, if they have one. The guest may have left out some.
    fn of(flips: &[Flip], now: Duration) -> Option<Self> {
        if flips.len() < EVIDENCE {
            return None;
        }
        let gaps: Vec<Duration> =
            flips.windows(2).map(|pair| pair[1].time.saturating_sub(pair[0].time)).collect();
        // Where flips jitter, the shortest gap is too short.
        let mut sorted = gaps.clone();
        sorted.sort();
        let beat = sorted[(sorted.len() - 1) / 2];
        if flips.iter().any(|flip| flip.blind > beat / 2) {
            return None;
        }
        let tolerance = beat / 4;
        let mut beats = 0;
        for gap in &gaps {
            let multiple = (1..=3).find(|&n| gap.abs_diff(beat * n) <= tolerance)?;
            beats += multiple;
        }
        let period = (gaps.iter().sum::<Duration>() / beats).max(SHORTEST_PERIOD);
        let mut rhythm = Self {
            period,
            due: flips.last()?.time,
            jitter: Duration::ZERO,
            periods: 0,
            surprises: 0,
        };
        rhythm.skip_to(now);
        Some(rhythm)
    }

    /// Returns how long before the flip is due to poll first.
    fn lead(&self) -> Duration {
        LEAD.max(self.jitter / 2)
    }

    fn step(&self) -> Duration {
        STEP.max(self.jitter / 2)
    }

    /// Returns how long to wait for a late flip.
    fn patience(&self) -> Duration {
        (self.period / 2).min(Duration::from_millis(8))
    }

    fn next_poll(&self, last: Duration) -> Duration {
        let halfway = self.due.saturating_sub(self.period / 2);
        if self.periods % HALFWAY_PERIODS == 0 && last < halfway {
            return halfway;
        }
        let first = self.due.saturating_sub(self.lead());
        if last < first {
            return first;
        }
        // The later it is, the less is known.
        last + self.step().max(last.saturating_sub(first) / 4)
    }

    /// Follows one poll. `released`: there were none until then.
    fn follow(&mut self, now: Duration, flipped: bool, blind: Duration, released: Duration) {
        if flipped && now + self.period / 4 < self.due {
            self.surprises = SURPRISES;
        } else if flipped {
            if blind <= PRECISE {
                self.surprises = self.surprises.saturating_sub(1);
                let flip = now.saturating_sub(blind / 2);
                self.jitter = (self.jitter * 7 + flip.abs_diff(self.due)) / 8;
                // Half of the error counts for the phase, and little of it for the period: flips
                // jitter.
                if flip > self.due {
                    let late = flip.saturating_sub(self.due);
                    self.due += late / 2;
                    self.period += late / 32;
                } else {
                    self.advance(self.due.saturating_sub(flip) / 2);
                }
            } else if released < self.due {
                self.surprises += 1;
                if now < self.due + self.step() {
                    // Seen at the first poll, it came before: poll earlier.
                    self.due = self.due.min(now);
                    self.advance(self.step());
                }
            }
            self.skip_to(now);
        } else if now > self.due + self.patience() {
            self.surprises += 2;
            self.skip_to(now);
        }
    }

    /// Flips come earlier than predicted.
    fn advance(&mut self, by: Duration) {
        self.due = self.due.saturating_sub(by);
        self.period = self.period.saturating_sub(by / 16).max(SHORTEST_PERIOD);
    }

    /// Predicts the next flip after now.
    fn skip_to(&mut self, now: Duration) {
        // A poll just before may have seen the flip that was due.
        let after = now + self.period / 4;
        if self.due > after {
            return;
        }
        // There may have been no poll for days.
        let periods = after.saturating_sub(self.due).as_nanos() / self.period.as_nanos() + 1;
        let skipped = u64::try_from(periods * self.period.as_nanos()).unwrap_or(u64::MAX);
        self.due += Duration::from_nanos(skipped);
        self.periods = self.periods.wrapping_add(u32::try_from(periods).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plane;

    const MS: Duration = Duration::from_millis(1);

    /// A guest, a front end's timer and the polls between, in simulated time.
    struct Simulation {
        pacer: Pacer,
        now: Duration,
        next_refresh: Duration,
        shown: u32,
        polls: u32,
        /// How long a front end holds each picture.
        hold: Duration,
        held_until: Duration,
    }

    impl Simulation {
        fn new() -> Self {
            Self {
                pacer: Pacer::default(),
                now: Duration::ZERO,
                next_refresh: Duration::ZERO,
                shown: 0,
                polls: 0,
                hold: Duration::ZERO,
                held_until: Duration::ZERO,
            }
        }

        /// The guest flips at these times; the front end refreshes every 30 ms. Returns how long
        /// after each flip it was seen.
        fn run(&mut self, flips: &[Duration]) -> Vec<Option<Duration>> {
            let last = flips.last().map(|&last| last + self.hold + MS * 4);
            let ends = flips.iter().skip(1).copied().chain(last);
            flips
                .iter()
                .zip(ends)
                .map(|(&flip, end)| {
                    self.run_until(flip);
                    self.shown += 1;
                    self.run_until(end).map(|seen| seen.saturating_sub(flip))
                })
                .collect()
        }

        /// Returns when a flip was seen.
        fn run_until(&mut self, end: Duration) -> Option<Duration> {
            let mut seen = None;
            loop {
                let poll = self.pacer.next_poll(self.now).map(|at| at.max(self.held_until));
                let next = poll.unwrap_or(self.next_refresh).min(self.next_refresh);
                if next >= end {
                    return seen;
                }
                self.now = next.max(self.now);
                if self.now < self.held_until {
                    self.pacer.refreshed(self.now, Duration::ZERO);
                    self.next_refresh = self.now + 30 * MS;
                    continue;
                }
                if self.hold > Duration::ZERO {
                    self.pacer.released(self.held_until);
                }
                self.polls += 1;
                let changed = self.pacer.poll(self.now, Some(&plane(self.shown, 16, 16)));
                if changed {
                    seen = Some(self.now);
                }
                if changed || self.now == self.next_refresh {
                    self.pacer.refreshed(self.now, MS / 10);
                    self.next_refresh = self.now + 30 * MS;
                    self.held_until = self.now + self.hold;
                }
            }
        }
    }

    /// Flips from `from` on, `period` apart, each up to `jitter` late.
    fn rhythm(from: Duration, period: Duration, count: u32, jitter: Duration) -> Vec<Duration> {
        let mut random = fastrand::Rng::with_seed(1);
        (0..count).map(|n| from + period * n + jitter.mul_f64(random.f64())).collect()
    }

    fn sorted(latencies: &[Option<Duration>]) -> Vec<Duration> {
        let mut sorted: Vec<_> = latencies.iter().flatten().copied().collect();
        sorted.sort();
        sorted
    }

    #[test]
    fn an_absence_takes_no_longer_the_longer_it_was() {
        let period = MS * 5;
        for absent in [0, 3, 4, 5, 9, 86_400_000, 1 << 43].map(Duration::from_millis) {
            let (due, jitter) = (MS * 1000, Duration::ZERO);
            let mut rhythm = Rhythm { period, due, jitter, periods: 0, surprises: 0 };
            let now = due + absent;
            rhythm.skip_to(now);
            let next = rhythm.due.saturating_sub(now + period / 4);
            assert!(!next.is_zero() && next <= period, "{absent:?}: {next:?}");
            let skipped = rhythm.due.saturating_sub(due).as_nanos();
            assert_eq!(skipped % period.as_nanos(), 0);
            let periods = u32::try_from(skipped / period.as_nanos()).unwrap_or(u32::MAX);
            assert_eq!(rhythm.periods, periods);
        }
    }

    #[test]
    fn regular_flips_are_seen_at_once_with_few_polls() {
        for hertz in [24, 30, 50, 60, 75, 90, 120, 144, 165] {
            let period = Duration::from_secs(1) / hertz;
            for jitter in [Duration::ZERO, MS / 2] {
                let mut simulation = Simulation::new();
                let seen = simulation.run(&rhythm(7 * MS, period, 1100, jitter));
                let latencies = sorted(&seen[100..]);
                let (median, high) =
                    (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100]);
                let polls = simulation.polls;
                let case = format!(
                    "{hertz} Hz, jitter {jitter:?}: {median:?} {high:?} {polls} polls, {:?}",
                    simulation.pacer.period()
                );
                assert_eq!(latencies.len(), 1000, "{case}");
                assert!(median <= MS / 2 && high <= MS * 3 / 2, "{case}");
                assert!(polls < 5000, "{case}");
                assert!(simulation.pacer.period().unwrap().abs_diff(period) < MS / 5, "{case}");
            }
        }
    }

    #[test]
    fn flips_that_are_rare_cost_no_polls() {
        let mut simulation = Simulation::new();
        let seen = simulation.run(&rhythm(7 * MS, 500 * MS, 20, Duration::ZERO));
        assert_eq!(seen.iter().flatten().count(), 20);
        let refreshes = 10_000 / 30;
        assert!(simulation.polls < refreshes + 20, "{} polls in ten seconds", simulation.polls);
    }

    #[test]
    fn a_rhythm_is_found_although_flips_jitter() {
        for (hertz, jitter) in [(24, 5), (24, 8), (30, 5), (30, 8), (60, 3), (60, 5)] {
            let mut simulation = Simulation::new();
            let seen =
                simulation.run(&rhythm(7 * MS, Duration::from_secs(1) / hertz, 600, MS * jitter));
            let latencies = sorted(&seen[60..]);
            let (median, polls) =
                (latencies[latencies.len() / 2], simulation.polls / (600 / hertz));
            let case =
                format!("{hertz} Hz, jitter {jitter} ms: {median:?}, {polls} polls in a second");
            assert!(latencies.len() > 530, "{case}, {} of 540 seen", latencies.len());
            assert!(median <= MS && polls < 240, "{case}");
        }
    }

    #[test]
    fn a_rhythm_is_found_although_a_front_end_holds_each_picture() {
        // At 30 Hz, the front end's own refresh comes just before each flip, and the flip while
        // that picture is held.
        for (hertz, hold) in [(30, 5), (30, 10), (60, 5), (60, 10)] {
            let mut simulation = Simulation { hold: MS * hold, ..Simulation::new() };
            let period = Duration::from_secs(1) / hertz;
            let seen = simulation.run(&rhythm(7 * MS, period, 600, MS));
            let latencies = sorted(&seen[60..]);
            let (worst, polls) = (latencies[latencies.len() - 1], simulation.polls / (600 / hertz));
            let case =
                format!("{hertz} Hz, held for {hold} ms: {worst:?}, {polls} polls in a second");
            assert_eq!(latencies.len(), 540, "{case}");
            assert!(worst < MS * hold + MS && polls < 160, "{case}");
            assert!(simulation.pacer.period().is_some(), "{case}");
        }
    }

    #[test]
    fn a_guest_that_changes_its_rhythm_is_followed() {
        for (before, after) in [(60, 144), (144, 60), (60, 120), (30, 60), (60, 59)] {
            let mut simulation = Simulation::new();
            let period = Duration::from_secs(1) / before;
            simulation.run(&rhythm(7 * MS, period, 300, MS / 4));
            let from = 7 * MS + period * 300;
            let period = Duration::from_secs(1) / after;
            simulation.run(&rhythm(from, period, 300, MS / 4));
            let found = simulation.pacer.period();
            assert!(
                found.is_some_and(|found| found.abs_diff(period) < MS / 4),
                "{before} -> {after} Hz: {found:?}"
            );
        }
    }

    #[test]
    fn a_guest_that_leaves_out_frames_keeps_its_rhythm() {
        let mut simulation = Simulation::new();
        let period = Duration::from_secs(1) / 60;
        let mut flips = rhythm(7 * MS, period, 1200, MS / 4);
        let mut random = fastrand::Rng::with_seed(2);
        flips.retain(|_| random.u8(..10) != 0);
        let seen = simulation.run(&flips);
        let latencies = sorted(&seen);
        let high = latencies[latencies.len() * 9 / 10];
        assert!(high < MS, "{high:?}");
        assert!(seen.len() - latencies.len() < 10, "{} of {} seen", latencies.len(), seen.len());
    }

    #[test]
    fn flips_without_a_rhythm_cost_a_bounded_number_of_polls() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut simulation = Simulation::new();
        let mut at = Duration::ZERO;
        let flips: Vec<Duration> = (0..1000)
            .map(|_| {
                at += MS * random.u32(2..60);
                at
            })
            .collect();
        simulation.run(&flips);
        let polls_per_second = f64::from(simulation.polls) / at.as_secs_f64();
        assert!(polls_per_second < 250.0, "{polls_per_second} polls in a second");
    }

    #[test]
    fn faster_than_anybody_can_show_is_not_followed() {
        let mut simulation = Simulation::new();
        simulation.run(&rhythm(7 * MS, MS / 2, 10_000, Duration::ZERO));
        assert!(simulation.polls < 2500, "{} polls in 5 s", simulation.polls);
    }

    #[test]
    fn a_guest_that_does_not_flip_is_hardly_asked() {
        let mut simulation = Simulation::new();
        simulation.run(&rhythm(7 * MS, Duration::from_secs(1) / 60, 100, Duration::ZERO));
        simulation.polls = 0;
        simulation.run_until(simulation.now + Duration::from_secs(10));
        assert!(simulation.polls < 450, "{} polls in 10 s", simulation.polls);
    }

    #[test]
    fn nobody_polls_for_nobody() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.next_poll(Duration::ZERO), None);
        pacer.refreshed(MS, MS);
        pacer.poll(MS, None);
        assert_eq!(pacer.next_poll(MS), Some(MS + IDLE_STEP));
        assert_eq!(pacer.next_poll(MS + ATTENTION), None);
    }

    #[test]
    fn looking_leaves_time_to_others() {
        let mut pacer = Pacer::default();
        pacer.refreshed(MS, 150 * MS);
        assert_eq!(pacer.next_poll(MS), Some(151 * MS));
    }
}
