//! Which user and groups a container runs as.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::intent::{ContainerSecurity, SupplementalGroupsPolicy};

/// Largest id: higher ones wrap to negative numbers somewhere between here and the
/// kernel, and -1 means "leave as it is" (CVE-2024-40635).
const MAX_ID: i64 = i32::MAX as i64;

/// As many groups as a process can have.
const MOST_GROUPS: usize = 65536;

/// Credentials of a container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, sorted, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory by the image's passwd file; empty if it has none.
    pub home: String,
}

impl User {
    /// Adds supplementary groups.
    pub fn join(&mut self, groups: &[u32]) {
        self.groups.extend(groups);
        self.groups.sort_unstable();
        self.groups.dedup();
    }
}

/// `/etc/passwd` and `/etc/group` of an image: kept as texts and read through when
/// asked, since a hostile one has a million lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserDatabase {
    passwd: String,
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl UserDatabase {
    /// Takes both files; an image without one gives an empty text. Lines that are
    /// not well formed are passed over, as the C library does.
    pub fn new(passwd: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            passwd: passwd.into(),
            group: group.into(),
        }
    }

    fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.passwd.lines().filter_map(Account::parse)
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.group.lines().filter_map(Group::parse)
    }

    fn by_name(&self, name: &str) -> Option<Account<'_>> {
        self.accounts().find(|account| account.name == name)
    }

    fn by_uid(&self, uid: u32) -> Option<Account<'_>> {
        self.accounts().find(|account| account.uid == uid)
    }

    fn group(&self, name: &str) -> Option<Group<'_>> {
        self.groups().find(|group| group.name == name)
    }

    fn groups_of<'a>(&'a self, member: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups()
            .filter(move |group| group.has(member))
            .map(|group| group.gid)
    }
}

impl<'a> Account<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let mut fields = fields.skip(1);
        let uid = small_id(fields.next()?)?;
        let gid = small_id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self {
            name,
            uid,
            gid,
            home,
        })
    }
}

impl<'a> Group<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let name = fields
            .next()
            .filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        let gid = small_id(fields.nth(1)?)?;
        let members = fields.next().unwrap_or_default();
        Some(Self { name, gid, members })
    }

    fn has(&self, member: &str) -> bool {
        let mut members = self.members.split(',').map(str::trim);
        members.any(|name| !name.is_empty() && name == member)
    }
}

fn small_id(text: &str) -> Option<u32> {
    text.parse::<u32>()
        .ok()
        .filter(|id| i64::from(*id) <= MAX_ID)
}

/// The user of a container: the request's, else the image's, else root.
pub fn resolve(
    security: &ContainerSecurity,
    image_user: &str,
    database: &UserDatabase,
) -> Result<User> {
    let base = primary(security, image_user, database)?;
    let mut groups = BTreeSet::from([base.gid]);
    for group in &security.supplemental_groups {
        groups.insert(id("linux.security_context.supplemental_groups", *group)?);
    }
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && let Some(name) = &base.name
    {
        for group in database.groups_of(name) {
            groups.insert(group);
            if groups.len() > MOST_GROUPS {
                let why = format!("is in more than {MOST_GROUPS} groups by the image's /etc/group");
                return Err(Error::invalid("user", name, why));
            }
        }
    }
    Ok(User {
        uid: base.uid,
        gid: base.gid,
        groups: groups.into_iter().collect(),
        home: base.home,
    })
}

struct Primary {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: String,
}

fn primary(
    security: &ContainerSecurity,
    image_user: &str,
    database: &UserDatabase,
) -> Result<Primary> {
    let username = &security.run_as_username;
    let mut primary = if let Some(uid) = security.run_as_user {
        from_uid(id("linux.security_context.run_as_user", uid)?, database)
    } else if !username.is_empty() {
        from_text("linux.security_context.run_as_username", username, database)?
    } else if let Some(gid) = security.run_as_group {
        let why = "needs run_as_user or run_as_username";
        return Err(Error::invalid(
            "linux.security_context.run_as_group",
            gid,
            why,
        ));
    } else {
        from_image(image_user, database)?
    };
    if let Some(gid) = security.run_as_group {
        primary.gid = id("linux.security_context.run_as_group", gid)?;
    }
    Ok(primary)
}

/// The image's `USER`: `user`, `uid`, `user:group`, `uid:gid` and mixtures.
fn from_image(text: &str, database: &UserDatabase) -> Result<Primary> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let user = if user.is_empty() { "0" } else { user };
    let mut primary = from_text("image user", user, database)?;
    if !group.is_empty() {
        primary.gid = match number("image user", group)? {
            Some(gid) => gid,
            None => {
                let unknown = || {
                    Error::invalid(
                        "image user",
                        group,
                        "no such group in the image's /etc/group",
                    )
                };
                database.group(group).ok_or_else(unknown)?.gid
            }
        };
    }
    Ok(primary)
}

fn from_text(field: &str, text: &str, database: &UserDatabase) -> Result<Primary> {
    if let Some(uid) = number(field, text)? {
        return Ok(from_uid(uid, database));
    }
    let unknown = || Error::invalid(field, text, "no such user in the image's /etc/passwd");
    Ok(Primary::from(database.by_name(text).ok_or_else(unknown)?))
}

/// A number needs no entry in the image's passwd file; without one its group is 0.
fn from_uid(uid: u32, database: &UserDatabase) -> Primary {
    database.by_uid(uid).map_or(
        Primary {
            uid,
            gid: 0,
            name: None,
            home: String::new(),
        },
        Into::into,
    )
}

impl From<Account<'_>> for Primary {
    fn from(account: Account<'_>) -> Self {
        Self {
            uid: account.uid,
            gid: account.gid,
            name: Some(account.name.to_owned()),
            home: account.home.to_owned(),
        }
    }
}

/// The number that a text is, if it looks like one. What looks like a number is
/// never taken for a name: an id out of range must not select an account.
fn number(field: &str, text: &str) -> Result<Option<u32>> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let parsed = (digits.len() == text.len())
        .then(|| small_id(text))
        .flatten();
    parsed.map(Some).ok_or_else(|| out_of_range(field, text))
}

fn id(field: &str, value: i64) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|_| value <= MAX_ID)
        .ok_or_else(|| out_of_range(field, value))
}

fn out_of_range(field: &str, value: impl ToString) -> Error {
    Error::invalid(
        field,
        value,
        format!("an id is a number from 0 to {MAX_ID}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        # a comment\n\
        broken line\n\
        high:x:4294967295:0::/:\n\
        default-user:x:1000:1000:d:/home/d:/bin/sh\n\
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:nobody, default-user\n\
        group-defined-in-image:x:50000:default-user\nwww:x:33:\n";

    fn database() -> UserDatabase {
        UserDatabase::new(PASSWD, GROUP)
    }

    fn image(user: &str) -> Result<User> {
        resolve(&ContainerSecurity::default(), user, &database())
    }

    fn ids(user: &User) -> (u32, u32, &[u32]) {
        (user.uid, user.gid, &user.groups)
    }

    #[test]
    fn image_user_in_every_form() {
        assert_eq!(ids(&image("").unwrap()), (0, 0, &[0][..]));
        assert_eq!(
            ids(&image("nobody").unwrap()),
            (65534, 65534, &[4, 65534][..])
        );
        assert_eq!(ids(&image("1002").unwrap()), (1002, 0, &[0][..]));
        assert_eq!(ids(&image("1003:1004").unwrap()), (1003, 1004, &[1004][..]));
        assert_eq!(
            ids(&image("nobody:www").unwrap()),
            (65534, 33, &[4, 33][..])
        );
        assert_eq!(ids(&image(":www").unwrap()), (0, 33, &[33][..]));
        assert_eq!(image("default-user").unwrap().home, "/home/d");
    }

    #[test]
    fn groups_policy_decides_about_the_images_groups() {
        let mut security = ContainerSecurity {
            run_as_user: Some(1000),
            supplemental_groups: vec![1234, 1234],
            ..ContainerSecurity::default()
        };
        let passwd = "default-user:x:1000:1000::/:\n";
        let group = "group-defined-in-image:x:50000:default-user\n";
        let database = UserDatabase::new(passwd, group);
        let user = resolve(&security, "1000", &database).unwrap();
        assert_eq!(ids(&user), (1000, 1000, &[1000, 1234, 50000][..]));
        security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
        let user = resolve(&security, "1000", &database).unwrap();
        assert_eq!(ids(&user), (1000, 1000, &[1000, 1234][..]));
    }

    #[test]
    fn request_goes_before_the_image() {
        let security = ContainerSecurity {
            run_as_user: Some(1001),
            run_as_group: Some(1002),
            ..ContainerSecurity::default()
        };
        assert_eq!(
            ids(&resolve(&security, "nobody", &database()).unwrap()),
            (1001, 1002, &[1002][..])
        );
        let security = ContainerSecurity {
            run_as_username: "nobody".to_owned(),
            ..ContainerSecurity::default()
        };
        assert_eq!(resolve(&security, "0", &database()).unwrap().uid, 65534);
    }

    #[test]
    fn further_groups_keep_the_order() {
        let mut user = image("nobody").unwrap();
        user.join(&[44, 4, 1]);
        assert_eq!(user.groups, [1, 4, 44, 65534]);
    }

    #[test]
    fn group_alone_is_refused() {
        let security = ContainerSecurity {
            run_as_group: Some(1002),
            ..ContainerSecurity::default()
        };
        let error = resolve(&security, "nobody", &database()).unwrap_err();
        assert!(
            error.to_string().contains("run_as_group: \"1002\""),
            "{error}"
        );
    }

    #[test]
    fn unknown_names_are_named() {
        assert!(
            image("ghost")
                .unwrap_err()
                .to_string()
                .contains("\"ghost\"")
        );
        assert!(
            image("nobody:ghosts")
                .unwrap_err()
                .to_string()
                .contains("\"ghosts\"")
        );
        assert!(image("no:body:x").is_err());
    }

    #[test]
    fn numbers_out_of_range_neither_wrap_nor_become_names() {
        let passwd = "4294967296:x:0:0::/:\n-1:x:0:0::/:\n2147483648:x:0:0::/:\n";
        let database = UserDatabase::new(passwd, "4294967296:x:0:\n");
        for text in [
            "4294967296",
            "2147483648",
            "-1",
            "+1",
            "99999999999999999999",
            "1:4294967296",
        ] {
            let error = resolve(&ContainerSecurity::default(), text, &database).unwrap_err();
            assert!(
                error.to_string().contains("from 0 to 2147483647"),
                "{error}"
            );
        }
        for value in [-1, 1 << 31, 1 << 32, i64::MIN] {
            let user = ContainerSecurity {
                run_as_user: Some(value),
                ..ContainerSecurity::default()
            };
            assert!(resolve(&user, "", &database).is_err(), "{value}");
            let groups = ContainerSecurity {
                supplemental_groups: vec![value],
                ..ContainerSecurity::default()
            };
            assert!(resolve(&groups, "", &database).is_err(), "{value}");
        }
        assert_eq!(image("2147483647").unwrap().uid, 2_147_483_647);
    }

    #[test]
    fn no_table_gives_more_groups_than_a_process_can_have() {
        let table = |count: u32| {
            (1..=count)
                .map(|gid| format!("g{gid}:x:{gid}:root\n"))
                .collect::<String>()
        };
        let user = |groups: String| {
            let database = UserDatabase::new("root:x:0:0::/:\n", groups);
            resolve(&ContainerSecurity::default(), "root", &database)
        };
        assert_eq!(user(table(65535)).unwrap().groups.len(), 65536);
        let error = user(table(65536)).unwrap_err().to_string();
        assert!(error.contains("65536 groups"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer(passwd in ".{0,80}", group in ".{0,80}", user in ".{0,20}") {
            let database = UserDatabase::new(passwd, group);
            if let Ok(user) = resolve(&ContainerSecurity::default(), &user, &database) {
                prop_assert!(user.groups.contains(&user.gid));
                prop_assert!(user.groups.is_sorted());
                prop_assert!(i64::from(user.uid) <= MAX_ID);
            }
        }

        #[test]
        fn a_number_is_itself_or_an_error(value in any::<i64>()) {
            let security =
                ContainerSecurity { run_as_user: Some(value), ..ContainerSecurity::default() };
            let resolved = resolve(&security, "", &UserDatabase::default());
            prop_assert_eq!(resolved.map(|user| i64::from(user.uid)).ok(),
                (0..=MAX_ID).contains(&value).then_some(value));
        }
    }
}
