//! Queries of a plane, as every kind of device answers them.

use std::io;

use crate::device::{Device, Failure};
use crate::exchange::Counters;
use crate::plane::{PlaneInfo, PlaneKind};
use crate::problem::Problem;

/// Queries a plane once. `flag`: how the device gives it.
pub fn ask(
    device: &impl Device,
    flag: u32,
    kind: PlaneKind,
    counters: &mut Counters,
) -> io::Result<PlaneInfo> {
    let mut info = PlaneInfo::request(flag, kind);
    counters.queries += 1;
    device.query_plane(&mut info).map(|()| info)
}

/// Queries a plane, twice if the first query may have come too early.
pub fn query(
    device: &impl Device,
    flag: u32,
    kind: PlaneKind,
    counters: &mut Counters,
) -> Result<PlaneInfo, Problem> {
    match ask(device, flag, kind, counters) {
        // mbochs answers ENOMEM to the first query of every mode. A one-shot refresh, as for
        // screendump, must get the picture, too.
        Err(error) if Failure::of(&error) == Failure::Transient => {
            ask(device, flag, kind, counters)
        }
        outcome => outcome,
    }
    .map_err(|error| Problem::Query { kind, error })
}
