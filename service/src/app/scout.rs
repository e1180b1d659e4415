//! A look at the module from a process of its own: does it show a token to who starts it
//! now? Some modules never show a token again that they once missed, and may not be started
//! anew under the tokens that are in use on the mere hope.

use std::process::{Command, Stdio};

use keywright_hsm::pkcs11::{Scout, TokenConfig};

/// This very program, also when its file was replaced meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// With the hidden command `look-for`, which ends by itself.
pub(super) fn of(token: &TokenConfig) -> Scout {
    let (module, reserved) = (token.module.clone(), token.init_reserved.clone());
    Scout::new(move |label, serial| {
        let mut look = Command::new(OURSELVES);
        look.arg("look-for").arg("--module").arg(&module);
        let given = [
            ("--init-reserved", reserved.as_deref()),
            ("--label", label),
            ("--serial", serial),
        ];
        for (flag, value) in given {
            // With '=': a value may begin with a dash.
            look.args(value.map(|value| format!("{flag}={value}")));
        }
        look.stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        look.status().is_ok_and(|status| status.success())
    })
}
