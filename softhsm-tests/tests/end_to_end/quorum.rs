//! Accepting a store that the daemon refuses takes several key administrators, and their yes
//! is to that one state of it.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::{store::edit, *};

/// A stopped appliance whose store was rolled back, where two must say yes.
struct RolledBack {
    dir: tempfile::TempDir,
    data: PathBuf,
    backup: PathBuf,
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

impl RolledBack {
    fn new() -> Self {
        let (dir, daemon) = start();
        create(&daemon);
        let data = daemon.dir.clone();
        assert!(daemon.stop().success());
        let backup = dir.path().join("backup.db");
        fs::copy(data.join("keywright.db"), &backup).unwrap();
        let daemon = Daemon::start(&data);
        let _ = ok(daemon.cli().args(["key", "suspend", KEY]));
        assert!(daemon.stop().success());
        let it = Self { dir, data, backup };
        it.roll_back();
        let approvals = ("recovery_approvals = 0", "recovery_approvals = 2");
        replace(&it.data.join("keywrightd.toml"), approvals.0, approvals.1);
        replace(
            &it.data.join("policies/roles.toml"),
            "key-admin = [",
            "key-admin = [\"spiffe://dev.keywright/bob\", ",
        );
        it
    }

    fn roll_back(&self) {
        fs::copy(&self.backup, self.data.join("keywright.db")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Certificate and key of somebody, by the CA of the appliance's users or by another.
    fn issue(&self, name: &str, foreign: bool) {
        let ca = if foreign {
            KeyPair::generate().unwrap()
        } else {
            KeyPair::from_pem(&fs::read_to_string(self.data.join("ca.key")).unwrap()).unwrap()
        };
        let named = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params
        };
        let mut authority = named("keywright dev CA");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = Issuer::from_params(&authority, ca);
        let key = KeyPair::generate().unwrap();
        let mut params = named(name);
        let id = format!("spiffe://dev.keywright/{name}");
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&key, &issuer).unwrap();
        fs::write(self.data.join(format!("certs/{name}.pem")), leaf.pem()).unwrap();
        let key_file = self.data.join(format!("certs/{name}.key"));
        fs::write(key_file, key.serialize_pem()).unwrap();
    }

    fn daemon(&self, verb: &str) -> Command {
        let mut command = Command::new(binary("keywrightd"));
        let _ = command
            .args([verb, "--config"])
            .arg(self.data.join("keywrightd.toml"))
            .env("SOFTHSM2_CONF", self.data.join("softhsm2.conf"));
        command
    }

    fn plan(&self, name: &str) -> Command {
        let mut command = self.daemon("plan-recovery");
        let _ = command.args(["--reason", "disk lost, ticket 4711", "--out"]);
        let _ = command.arg(self.path(name));
        command
    }

    fn approve(&self, plan: &str, who: &str, out: &str) -> Command {
        let mut command = Command::new(binary("keywright"));
        let file = |end: &str| self.data.join(format!("certs/{who}.{end}"));
        let _ = command
            .args(["admin", "approve-recovery"])
            .arg(self.path(plan))
            .arg("--out")
            .arg(self.path(out))
            .env("KEYWRIGHT_CERT", file("pem"))
            .env("KEYWRIGHT_KEY", file("key"));
        command
    }

    fn recover(&self, plan: &str, approvals: &[&str]) -> Command {
        let mut command = self.daemon("recover-store");
        let _ = command.arg("--plan").arg(self.path(plan));
        for approval in approvals {
            let _ = command.arg("--approval").arg(self.path(approval));
        }
        command
    }
}

#[test]
fn a_store_is_accepted_by_two_administrators_and_not_by_fewer() {
    let it = RolledBack::new();
    it.issue("bob", false);
    let said = fails(&mut recover_store(&it.data, "in a hurry"), 4);
    assert!(said.contains("2 key administrators must approve"), "{said}");
    let said = String::from_utf8(ok(&mut it.plan("plan")).stdout).unwrap();
    assert!(said.contains("approve-recovery"), "{said}");
    let _ = fails(&mut it.plan("plan"), 4);
    // Shown first, signed when it was read, and nothing is written over.
    let said = fails(&mut it.approve("plan", "admin", "alice"), 2);
    assert!(said.contains("--yes"), "{said}");
    for (who, out) in [("admin", "alice"), ("bob", "bob"), ("user", "user")] {
        let _ = ok(it.approve("plan", who, out).arg("--yes"));
    }
    let _ = fails(it.approve("plan", "admin", "alice").arg("--yes"), 1);

    let no = |approvals: &[&str], why: &str| {
        let said = fails(&mut it.recover("plan", approvals), 4);
        assert!(said.contains(why), "{said}");
    };
    no(&[], "0 approvals; 2 are needed");
    no(&["alice"], "1 approvals; 2 are needed");
    no(&["alice", "alice"], "are one approver");
    no(&["alice", "user"], "is no key administrator");
    no(&["alice", "plan"], "not an approval");
    it.issue("bob", true);
    let _ = ok(it.approve("plan", "bob", "mallory").arg("--yes"));
    no(&["alice", "mallory"], "not one of this appliance's users");
    let forged = fs::read_to_string(it.path("bob")).unwrap();
    let forged = forged.replace("signature = \"", "signature = \"00");
    fs::write(it.path("forged"), forged).unwrap();
    no(&["alice", "forged"], "is not by its certificate");

    // Two say yes.
    let out = ok(&mut it.recover("plan", &["alice", "bob"]));
    let said = String::from_utf8(out.stdout).unwrap();
    for who in ["admin", "bob"] {
        let approved = format!("Approved by spiffe://dev.keywright/{who}.");
        assert!(said.contains(&approved), "{said}");
    }
    let said = fails(&mut it.recover("plan", &["alice", "bob"]), 6);
    assert!(said.contains("carried out already"), "{said}");
    let daemon = Daemon::start(&it.data);
    assert!(daemon.stop().success());
    let logs = fs::read_dir(it.data.join("audit")).unwrap();
    let records: String = logs
        .map(|f| fs::read_to_string(f.unwrap().path()).unwrap_or_default())
        .collect();
    let recovering = records.lines().find(|l| l.contains("store_recovering"));
    let recovering = recovering.unwrap();
    assert!(recovering.contains("\"approved_by\""), "{recovering}");
    assert!(recovering.contains("disk lost, ticket 4711"));
}

#[test]
fn a_yes_is_to_one_state_of_the_store() {
    let it = RolledBack::new();
    it.issue("bob", false);
    let _ = ok(&mut it.plan("plan"));
    for (who, out) in [("admin", "alice"), ("bob", "bob")] {
        let _ = ok(it.approve("plan", who, out).arg("--yes"));
    }
    // Somebody changes the store after it was approved.
    edit(
        &it.data,
        "UPDATE keys SET rules = '{\"lease_seconds\":60}' WHERE primary_version = 1",
    );
    let said = fails(&mut it.recover("plan", &["alice", "bob"]), 6);
    assert!(said.contains("is not what the plan says"), "{said}");
    it.roll_back();
    // Or the plan.
    let approved = fs::read_to_string(it.path("plan")).unwrap();
    fs::write(it.path("other"), approved.replace("4711", "4712")).unwrap();
    let said = fails(&mut it.recover("other", &["alice", "bob"]), 4);
    assert!(said.contains("of another plan"), "{said}");
    // Nobody accepted anything so far.
    let (_, log) = Daemon::try_start(&it.data, Command::new(binary("keywrightd"))).unwrap_err();
    assert!(log.contains("older than this token has seen it"), "{log}");
    let _ = ok(&mut it.recover("plan", &["bob", "alice"]));
    assert!(Daemon::start(&it.data).stop().success());
}
