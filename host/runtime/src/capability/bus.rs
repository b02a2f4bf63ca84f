//! `vers:harness/bus`: messages between the extensions of one session.

use pi_vers_policy::Request;

use crate::bindings::vers::harness::bus::Host;
use crate::guest::Guest;

impl Host for Guest {
    fn emit(&mut self, topic: String, data: String) -> wasmtime::Result<()> {
        if self.judge(&Request::Bus { topic: &topic }).is_ok()
            && let Ok(services) = self.services()
        {
            services.bus.emit(&self.name, topic, data);
        }
        Ok(())
    }
}
