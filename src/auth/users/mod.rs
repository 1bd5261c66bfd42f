//! Accounts: the users file, how it is read, edited and validated, and the accounts in force.

mod edit;
mod error;
mod file;
mod store;
mod validate;

pub use edit::{DEFAULT_ACCOUNTS, create_default, edit};
pub use error::{EditError, FileError};
pub use file::{UserRow, UsersTable};
pub use store::{Account, PendingUsers, RowFault, UserChanges, Users, UsersReload, accounts_of};
pub use validate::{check_email, check_password, check_username, is_possible_username};
