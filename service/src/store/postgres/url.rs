//! The address of a PostgreSQL database: what may stand in it, and what must.

use std::{fmt, net::IpAddr, str::FromStr};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// `postgres://user@host:port/database?sslmode=…`, without a password. What it shows of
/// itself is user, host, port and database.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    text: String,
    place: String,
}

/// What may stand behind the `?`. Not more: what sqlx does not know it logs and ignores.
const PARAMETERS: [&str; 7] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "port",
    "application_name",
];

impl PostgresUrl {
    /// Reads an address.
    ///
    /// # Errors
    /// What to change; never with the text itself, which may hold a password after all.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = ["postgres://", "postgresql://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme))
            .ok_or("it must begin with postgres://")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = path.split('/').next().unwrap_or_default();
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| user.contains(':')) {
            return Err("a password does not stand in the address; put it into a file of its own and name that with password_file".into());
        }
        if text.contains('#') {
            return Err("`#` does not stand in an address; write %23".into());
        }
        for parameter in query.split('&').filter(|p| !p.is_empty()) {
            let (name, _) = parameter.split_once('=').unwrap_or((parameter, ""));
            if !PARAMETERS.contains(&name) {
                let known = PARAMETERS.join(", ");
                return Err(format!("behind the `?` only these can stand: {known}"));
            }
        }
        let options = PgConnectOptions::from_str(text)
            .map_err(|_| "it is not like postgres://user@host:port/database?sslmode=verify-full")?;
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let here = options.get_socket().is_some() || is_loopback(&host);
        if !here && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
            return Err(format!(
                "{host} is another machine: sslmode must be verify-full (with sslrootcert=… where its certificate is of a CA of your own), or anybody between could be the database"
            ));
        }
        let place = format!(
            "PostgreSQL at {host}:{} (database {}, user {})",
            options.get_port(),
            options.get_database().unwrap_or(options.get_username()),
            options.get_username(),
        );
        Ok(Self {
            text: text.to_owned(),
            place,
        })
    }

    /// For the driver alone.
    pub(super) fn with_password(&self, password: Option<&str>) -> String {
        let mut text = self.text.clone();
        if let Some(password) = password {
            text.push(if text.contains('?') { '&' } else { '?' });
            text.push_str("password=");
            for byte in password.bytes() {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || ip.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_machine_has_to_prove_who_it_is() {
        for good in [
            "postgres://keywright@db.internal/keywright?sslmode=verify-full",
            "postgresql://k@db:6432/k?sslmode=verify-full&sslrootcert=/etc/ca.pem",
            "postgres://k@127.0.0.1/k",
            "postgres://k@[::1]/k",
            "postgres://k@localhost/k?sslmode=disable",
            "postgres:///k?host=/run/postgresql&application_name=a",
        ] {
            let url = PostgresUrl::parse(good).unwrap();
            assert!(url.to_string().contains("database k"), "{url}");
        }
        for mode in [
            "",
            "?sslmode=require",
            "?sslmode=verify-ca",
            "?sslmode=prefer",
        ] {
            let e = PostgresUrl::parse(&format!("postgres://k@db.internal/k{mode}")).unwrap_err();
            assert!(e.contains("sslmode must be verify-full"), "{mode}: {e}");
            assert!(e.contains("db.internal"), "{e}");
        }
        // What stands last is where it goes.
        let e = PostgresUrl::parse("postgres://k@127.0.0.1/k?host=db.internal").unwrap_err();
        assert!(e.contains("verify-full"), "{e}");
    }

    #[test]
    fn a_password_is_neither_taken_nor_shown() {
        for (bad, why) in [
            ("postgres://k:geheim@127.0.0.1/k", "password_file"),
            ("postgres://k@127.0.0.1/k?password=geheim", "only these"),
            ("postgres://k@127.0.0.1/k?passwort=geheim", "only these"),
            ("postgres://k@127.0.0.1/k#geheim", "%23"),
            ("mysql://k@127.0.0.1/geheim", "postgres://"),
            ("postgres://k@127.0.0.1:geheim/k", "it is not like"),
        ] {
            let e = PostgresUrl::parse(bad).unwrap_err();
            assert!(e.contains(why) && !e.contains("geheim"), "{bad}: {e}");
        }
        let url = PostgresUrl::parse("postgres://k@127.0.0.1/k?sslmode=disable").unwrap();
        let whole = url.with_password(Some("a&b ü?#"));
        let shown = format!("{url} {url:?}");
        assert!(
            !shown.contains("sslmode") && !shown.contains("a&b"),
            "{shown}"
        );
        let options = PgConnectOptions::from_str(&whole).unwrap();
        let parsed = sqlx::ConnectOptions::to_url_lossy(&options);
        assert_eq!(parsed.password(), Some("a%26b%20%C3%BC%3F%23"));
    }
}
