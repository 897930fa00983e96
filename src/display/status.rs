//! The status of a display as JSON, for programs. QEMU's `qapi/vfio.json` defines its members
//! (`VfioDisplayStatus`).

use serde_json::{Value, json};

use crate::clock::Alarms;
use crate::console::Console;
use crate::damage::Counts;
use crate::device::Device;
use crate::exchange::Facts;
use crate::format::ModifierName;
use crate::plane::{Geometry, Plane};
use crate::pool::Statistics;
use crate::presenter::Screen;

use super::Display;
use super::durations::Durations;

impl<D: Device, C: Console, T: Alarms> Display<D, C, T> {
    /// Returns the status as a JSON object.
    pub fn status(&self) -> Value {
        let facts = self.facts();
        let (asked, showed) = (&facts.counters, self.presenter.counters());
        let mut status = json!({
            "device": self.name,
            "mode": self.mode.to_string(),
            "shows": self.presenter.screen().name(),
            "edid": self.has_edid(),
            "thread": self.has_thread(),
            "refreshes": self.refreshes,
            "queries": asked.queries,
            "flips": showed.flips,
            "refresh-microseconds": durations_status(&self.durations),
            "errors": list(&showed.errors, |(kind, count)| json!({ "kind": kind, "count": count })),
        });
        let mut add = |name: &str, value: Value| status[name] = value;
        if let Some(written) = facts.edids_written {
            add("edids-written", json!(written));
        }
        if let Some(signals) = facts.signals {
            add("events", json!({ "signals": signals }));
        }
        if self.has_failed() {
            add("broken", json!(true));
        }
        if let Some((last, withheld)) = self.presenter.last_error() {
            add("last-error", json!(last));
            add("errors-withheld", json!(withheld));
        }
        self.add_picture(&facts, &mut add);
        self.add_mode(&facts, &mut add);
        status
    }

    /// Adds what is shown.
    fn add_picture(&self, facts: &Facts, add: &mut impl FnMut(&str, Value)) {
        if let Some(plane) = self.presenter.plane() {
            add("plane", plane_status(plane));
        }
        if let Some(plane) = self.presenter.pointer() {
            add("cursor", cursor_status(plane));
        }
        match self.presenter.screen() {
            Screen::Message(text) => add("message", json!(text)),
            Screen::Surface(_) => {
                let Counts { copied, compared, sampled } = facts.frames.unwrap_or_default();
                let frames = json!({ "compared": compared, "sampled": sampled, "copied": copied });
                add("frames", frames);
            }
            _ => (),
        }
    }

    /// Adds what only one of the modes has.
    fn add_mode(&self, facts: &Facts, add: &mut impl FnMut(&str, Value)) {
        let (asked, showed) = (&facts.counters, self.presenter.counters());
        if let Some(period) = facts.pacing {
            let mut pacing = json!({ "polls": asked.polls });
            if let Some(period) = period {
                pacing["period-microseconds"] = json!(u64::try_from(period.as_micros()).ok());
            }
            add("pacing", pacing);
        }
        if let Some(pool) = facts.pool {
            add("gets", json!(asked.gets));
            add("races", json!(asked.races));
            add("imports", json!(showed.imports));
            add("pool", pool_status(&pool));
        } else {
            add("maps", json!(asked.maps));
            add("direct", json!(showed.direct));
        }
    }
}

fn list<T>(items: impl IntoIterator<Item = T>, status: impl Fn(T) -> Value) -> Value {
    items.into_iter().map(status).collect()
}

fn plane_status(plane: &Plane) -> Value {
    let Geometry { format, width, height, stride, .. } = plane.geometry;
    json!({
        "width": width,
        "height": height,
        "stride": stride,
        "fourcc": format.fourcc.to_string(),
        "modifier": ModifierName(format.modifier).to_string(),
        "handle": plane.handle,
    })
}

fn cursor_status(plane: &Plane) -> Value {
    let mut status = plane_status(plane);
    status["x"] = json!(plane.position.0);
    status["y"] = json!(plane.position.1);
    if let Some((x, y)) = plane.hotspot {
        status["hot-x"] = json!(x);
        status["hot-y"] = json!(y);
    }
    status
}

fn durations_status(durations: &Durations) -> Value {
    json!({
        "median": durations.percentile(50),
        "p99": durations.percentile(99),
        "longest": durations.longest(),
        "counts": list(durations.counts(), |(microseconds, refreshes)| {
            json!({ "microseconds": microseconds, "refreshes": refreshes })
        }),
    })
}

fn pool_status(pool: &Statistics) -> Value {
    json!({
        "buffers": pool.buffers,
        "pinned": pool.pinned,
        "bytes": pool.bytes,
        "look-ups": pool.look_ups,
        "evictions": pool.evictions,
        "duplicates": pool.duplicates,
        "violations": pool.violations,
    })
}
