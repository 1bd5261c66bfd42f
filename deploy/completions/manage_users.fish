# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_manage_users_global_optspecs
    string join \n env-file= h/help V/version
end

function __fish_manage_users_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_manage_users_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_manage_users_using_subcommand
    set -l cmd (__fish_manage_users_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c manage_users -n "__fish_manage_users_needs_command" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c manage_users -n "__fish_manage_users_needs_command" -s V -l version -d 'Print version'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "add" -d 'Add a user: `add alice --password-stdin`, or `add alice:password[:email]`'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "passwd" -d 'Change a password'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "remove" -d 'Remove a user; their tokens and sessions end'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "enable" -d 'Allow a disabled user to log in again'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "disable" -d 'Disable a user without removing the account; their tokens and sessions end'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "list" -d 'List the users, and rows that are not valid'
complete -c manage_users -n "__fish_manage_users_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c manage_users -n "__fish_manage_users_using_subcommand add" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand add" -l password-stdin -d 'Read the password from the first line of standard input instead of asking on the terminal'
complete -c manage_users -n "__fish_manage_users_using_subcommand add" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand passwd" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand passwd" -l password-stdin -d 'Read the password from the first line of standard input instead of asking on the terminal'
complete -c manage_users -n "__fish_manage_users_using_subcommand passwd" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand remove" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand remove" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand enable" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand enable" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand disable" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand disable" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand list" -l env-file -d 'Read USERS_CSV from this file instead of .env in the working folder' -r -F
complete -c manage_users -n "__fish_manage_users_using_subcommand list" -s h -l help -d 'Print help'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "add" -d 'Add a user: `add alice --password-stdin`, or `add alice:password[:email]`'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "passwd" -d 'Change a password'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "remove" -d 'Remove a user; their tokens and sessions end'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "enable" -d 'Allow a disabled user to log in again'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "disable" -d 'Disable a user without removing the account; their tokens and sessions end'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "list" -d 'List the users, and rows that are not valid'
complete -c manage_users -n "__fish_manage_users_using_subcommand help; and not __fish_seen_subcommand_from add passwd remove enable disable list help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
