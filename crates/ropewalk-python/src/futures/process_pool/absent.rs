//! Where there is no process pool, no future is in one.

use std::time::Instant;

use pyo3::prelude::*;
use ropewalk::futures::State;
use ropewalk::futures::state::StateMachine;
use ropewalk::park::Wake;

pub(crate) enum InPool {}

impl InPool {
    pub(crate) fn machine(&self) -> &StateMachine {
        match *self {}
    }

    pub(crate) fn state(&self) -> State {
        match *self {}
    }

    pub(crate) fn cancel(&self, _running: bool) -> bool {
        match *self {}
    }

    pub(crate) fn wait(&self, _deadline: Option<Instant>) -> Wake {
        match *self {}
    }

    pub(crate) fn failed(&self) -> Option<bool> {
        match *self {}
    }

    pub(crate) fn decode(&self, _py: Python<'_>) -> Option<super::future::Outcome> {
        match *self {}
    }

    pub(crate) fn decoded(&self) {
        match *self {}
    }

    pub(crate) fn tell_when_done(&self, _future: &Bound<'_, super::future::Future>) -> PyResult<bool> {
        match *self {}
    }
}
