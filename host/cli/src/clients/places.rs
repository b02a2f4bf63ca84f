//! Where clients keep their configuration.

use std::path::{Path, PathBuf};

use super::document::{Path as Names, Syntax, names};
use super::options::{Client, Scope};
use crate::failure::Failure;

/// Directories that decide where files are.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) home: PathBuf,
    /// `$XDG_CONFIG_HOME`, or what takes its place.
    pub(crate) config: PathBuf,
    /// The project.
    pub(crate) here: PathBuf,
    /// `$CLAUDE_CONFIG_DIR`
    pub(crate) claude: Option<PathBuf>,
    /// `$CODEX_HOME`
    pub(crate) codex: Option<PathBuf>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: PathBuf,
    pub(crate) syntax: Syntax,
    /// The object of all servers, or the list of hooks.
    pub(crate) path: Names,
    /// Nobody but the user reads it.
    pub(crate) private: bool,
}

impl Places {
    /// Those of this process.
    pub(crate) fn new() -> Result<Self, Failure> {
        let directory = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = std::env::home_dir().filter(|home| home.is_absolute());
        let home = home.ok_or_else(|| {
            Failure::internal("there is no home directory").next("set HOME to an absolute path")
        })?;
        let here = std::env::current_dir().map_err(|why| {
            Failure::usage(format!(
                "the working directory is not there any more ({why}): change to another"
            ))
        })?;
        let config = if cfg!(target_os = "macos") {
            home.join("Library/Application Support")
        } else {
            directory("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"))
        };
        Ok(Self {
            home,
            config,
            here,
            claude: directory("CLAUDE_CONFIG_DIR"),
            codex: directory("CODEX_HOME"),
        })
    }

    /// Where this client has its servers.
    pub(crate) fn servers(&self, client: Client, scope: Scope) -> Result<Place, Failure> {
        use Syntax::{Json, JsonWithComments, Toml};
        let user = |file: PathBuf, syntax, path| Place {
            file,
            syntax,
            path,
            private: true,
        };
        let project = |file: &str, syntax, path| Place {
            file: self.here.join(file),
            syntax,
            path,
            private: false,
        };
        Ok(match (client, scope) {
            (Client::Claude, Scope::User) => user(self.claude_json(), Json, names(["mcpServers"])),
            (Client::Claude, Scope::Local) => {
                let here = self.project().to_string_lossy().into_owned();
                user(
                    self.claude_json(),
                    Json,
                    names(["projects", &here, "mcpServers"]),
                )
            }
            (Client::Claude, Scope::Project) => project(".mcp.json", Json, names(["mcpServers"])),
            (Client::Codex, Scope::User) => user(
                self.codex_home().join("config.toml"),
                Toml,
                names(["mcp_servers"]),
            ),
            (Client::Codex, Scope::Project) => {
                project(".codex/config.toml", Toml, names(["mcp_servers"]))
            }
            (Client::Cursor, Scope::User) => user(
                self.home.join(".cursor/mcp.json"),
                JsonWithComments,
                names(["mcpServers"]),
            ),
            (Client::Cursor, Scope::Project) => {
                project(".cursor/mcp.json", JsonWithComments, names(["mcpServers"]))
            }
            (Client::Vscode, Scope::User) => user(
                self.config.join("Code/User/mcp.json"),
                JsonWithComments,
                names(["servers"]),
            ),
            (Client::Vscode, Scope::Project) => {
                project(".vscode/mcp.json", JsonWithComments, names(["servers"]))
            }
            (Client::Desktop, Scope::User) => user(
                self.config.join("Claude/claude_desktop_config.json"),
                Json,
                names(["mcpServers"]),
            ),
            (client, scope) => {
                let (client, scope) = (super::title(client), super::word(scope));
                return Err(Failure::usage(format!(
                    "{client} has no configuration of the scope {scope}"
                ))
                .next("leave --scope out, or see docs/mcp-clients.md"));
            }
        })
    }

    /// Where this client has its hooks; `None`: it has none.
    pub(crate) fn hooks(&self, client: Client, scope: Scope) -> Option<Place> {
        let file = match (client, scope) {
            (Client::Claude, Scope::User) => self.claude_home().join("settings.json"),
            (Client::Claude, Scope::Project) => self.here.join(".claude/settings.json"),
            (Client::Claude, Scope::Local) => self.here.join(".claude/settings.local.json"),
            (Client::Codex, Scope::User) => self.codex_home().join("hooks.json"),
            (Client::Codex, Scope::Project) => self.here.join(".codex/hooks.json"),
            _ => return None,
        };
        Some(Place {
            file,
            syntax: Syntax::Json,
            path: names(["hooks", "PreToolUse"]),
            private: scope == Scope::User,
        })
    }

    fn claude_home(&self) -> PathBuf {
        let home = self.claude.clone();
        home.unwrap_or_else(|| self.home.join(".claude"))
    }

    fn codex_home(&self) -> PathBuf {
        let home = self.codex.clone();
        home.unwrap_or_else(|| self.home.join(".codex"))
    }

    fn claude_json(&self) -> PathBuf {
        let home = self.claude.as_ref().unwrap_or(&self.home);
        home.join(".claude.json")
    }

    /// What Claude Code takes for the project: the root of the repository, else the directory itself.
    fn project(&self) -> PathBuf {
        let root = self.here.ancestors().find(|at| at.join(".git").exists());
        root.map_or_else(|| self.here.clone(), Path::to_path_buf)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn places(root: &Path) -> Places {
        Places {
            home: root.join("home"),
            config: root.join("home/.config"),
            here: root.join("work/sub"),
            claude: None,
            codex: None,
        }
    }

    #[test]
    fn each_client_has_its_file() {
        let mut all = places(Path::new("/r"));
        let file = |all: &Places, client, scope| all.servers(client, scope).unwrap().file;
        assert_eq!(
            file(&all, Client::Claude, Scope::User),
            Path::new("/r/home/.claude.json")
        );
        assert_eq!(
            file(&all, Client::Claude, Scope::Project),
            Path::new("/r/work/sub/.mcp.json")
        );
        assert_eq!(
            file(&all, Client::Codex, Scope::User),
            Path::new("/r/home/.codex/config.toml")
        );
        assert_eq!(
            file(&all, Client::Vscode, Scope::User),
            Path::new("/r/home/.config/Code/User/mcp.json")
        );
        all.claude = Some("/c".into());
        all.codex = Some("/x".into());
        assert_eq!(
            file(&all, Client::Claude, Scope::Local),
            Path::new("/c/.claude.json")
        );
        assert_eq!(
            file(&all, Client::Codex, Scope::User),
            Path::new("/x/config.toml")
        );
        assert_eq!(
            all.hooks(Client::Claude, Scope::User).unwrap().file,
            Path::new("/c/settings.json")
        );
        assert_eq!(
            all.hooks(Client::Claude, Scope::Local).unwrap().file,
            Path::new("/r/work/sub/.claude/settings.local.json")
        );
    }

    #[test]
    fn a_scope_that_a_client_does_not_have_is_told() {
        let all = places(Path::new("/r"));
        for (client, scope) in [
            (Client::Desktop, Scope::Project),
            (Client::Codex, Scope::Local),
            (Client::Vscode, Scope::Local),
        ] {
            let why = all.servers(client, scope).unwrap_err();
            assert!(
                why.line().contains("no configuration of the scope"),
                "{}",
                why.line()
            );
        }
    }

    /// As `claude mcp add` does it: the server is kept for the whole repository.
    #[test]
    fn the_local_scope_of_claude_code_is_the_repository() {
        let root = tempfile::tempdir().unwrap();
        let all = places(root.path());
        std::fs::create_dir_all(&all.here).unwrap();
        let at = |all: &Places| all.servers(Client::Claude, Scope::Local).unwrap().path;
        let of = |path: &str| names(["projects", path, "mcpServers"]);
        assert_eq!(
            at(&all),
            of(&root.path().join("work/sub").to_string_lossy())
        );
        std::fs::create_dir(root.path().join("work/.git")).unwrap();
        assert_eq!(at(&all), of(&root.path().join("work").to_string_lossy()));
    }
}
