//! Who somebody is: accounts in a CSV file, passwords, tokens, and what ends them.

pub mod grants;
pub mod password;
pub mod revoked;
pub mod ticket;
pub mod token;
pub mod users;
pub mod users_file;
