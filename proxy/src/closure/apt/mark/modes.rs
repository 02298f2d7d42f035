//! What may become of one package, and its becoming that.

use super::{
    super::state::{By, Dep, Kind, Mode, Spot, World, same},
    DEEPEST, Marker, Marking,
};

impl<'m> Marker<'m> {
    pub(super) fn spot(&self, at: usize) -> &Spot<'m> {
        &self.state.spots[at]
    }

    pub(super) fn spot_mut(&mut self, at: usize) -> &mut Spot<'m> {
        &mut self.state.spots[at]
    }

    /// `IsModeChangeOk`.
    pub(super) fn may_become(&self, mode: Mode, at: usize, (depth, is_asked): (u32, bool)) -> bool {
        let spot = self.spot(at);
        if depth > DEEPEST {
            return false;
        }
        if is_asked || spot.mode == mode {
            return true;
        }
        let is_kept = mode != Mode::Keep && spot.is_on_hold();
        let is_vital = mode == Mode::Delete && spot.is_vital();
        !spot.is_protected && !is_kept && !is_vital
    }

    /// `MarkKeep`.
    pub(super) fn keep(&mut self, at: usize, how: (u32, bool)) -> bool {
        if !self.may_become(Mode::Keep, at, how) {
            return false;
        }
        let spot = self.spot_mut(at);
        if spot.mode != Mode::Keep {
            spot.mode = Mode::Keep;
            spot.to_be = spot.current;
        }
        true
    }

    /// `IsDeleteOk`: what was asked for is not given up.
    pub(super) fn may_go(&self, at: usize) -> bool {
        let spot = self.spot(at);
        spot.current.is_some() || spot.to_be.is_none() || spot.is_auto
    }

    /// `MarkDelete`.
    pub(super) fn delete(&mut self, at: usize, depth: u32, by: By<'m>) -> bool {
        if !self.may_become(Mode::Delete, at, (depth, false)) {
            return false;
        }
        if self.spot(at).mode == Mode::Delete || self.spot(at).to_be.is_none() {
            return true;
        }
        if !self.may_go(at) {
            return false;
        }
        let spot = self.spot_mut(at);
        spot.mode = if spot.current.is_none() {
            Mode::Keep
        } else {
            Mode::Delete
        };
        spot.to_be = None;
        spot.by = by;
        true
    }

    /// `MarkInstall_DiscardCandidate`.
    pub(super) fn discard_candidate(&mut self, at: usize) {
        let spot = self.spot_mut(at);
        spot.candidate = spot.to_be;
    }

    /// `MarkInstall_DiscardInstall`.
    pub(super) fn discard(&mut self, at: usize) {
        let spot = self.spot_mut(at);
        spot.to_be = spot.current;
        spot.mode = Mode::Keep;
        spot.candidate = spot.to_be;
    }

    /// `MarkInstall_StateChange`.
    pub(super) fn change(&mut self, marking: Marking<'m>) {
        let spot = self.spot_mut(marking.at);
        if spot.is_protected && same(spot.to_be, spot.candidate) {
            return;
        }
        spot.mode = if same(spot.candidate, spot.current) {
            Mode::Keep
        } else {
            Mode::Install
        };
        spot.to_be = spot.candidate;
        spot.by = marking.by;
        if marking.is_asked {
            spot.is_auto = false;
        } else if spot.current.is_none() {
            spot.is_auto = true;
        }
    }

    /// `IsInstallOkDependenciesSatisfiableByCandidates`: what cannot be had for want of candidates is none itself.
    pub(super) fn can_be_met(&mut self, at: usize, is_auto: bool) -> bool {
        let spot = self.spot(at);
        let Some(package) = spot.candidate.filter(|_| !same(spot.candidate, spot.current)) else {
            return true;
        };
        let is_hopeless = |dep: &Dep<'m>| {
            dep.kind == Kind::Need
                && !self.state.holds(package, dep, World::ToBe)
                && !self.state.holds(package, dep, World::Candidates)
        };
        if !is_auto || !self.state.facts(package).deps.iter().any(is_hopeless) {
            return true;
        }
        let spot = self.spot_mut(at);
        if !spot.is_protected {
            spot.candidate = spot.current;
            if spot.mode != Mode::Delete {
                spot.mode = Mode::Keep;
                spot.to_be = spot.current;
            }
        }
        false
    }
}
