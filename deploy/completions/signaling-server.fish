# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_signaling_server_global_optspecs
    string join \n check-config strict env-file= h/help V/version
end

function __fish_signaling_server_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_signaling_server_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_signaling_server_using_subcommand
    set -l cmd (__fish_signaling_server_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c signaling-server -n "__fish_signaling_server_needs_command" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_needs_command" -l check-config -d 'Check settings, accounts and files for production use, list what must change, and exit'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -l strict -d 'With --check-config: lines of .env that have no effect, and secrets in quotes or white space, are faults, too'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -s V -l version -d 'Print version'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "admin" -d 'Manage the rooms and members of a running server'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "config" -d 'Print the settings in force and where each comes from; secrets as set or not set'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "doctor" -d 'Check settings, secrets, accounts, files, certificate, port, clock, Redis, and each STUN and TURN server'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "healthcheck" -d 'Ask the running server that the settings name whether it is ready; the exit code is 0 if it is'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "init" -d 'Write settings with fresh secrets, an account, and the files of proxy, TURN server and service for a domain'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "token" -d 'Print an access token for a user of your application, signed with JWT_SECRET_KEY'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "webhook-secret" -d 'Print the secret with which receivers of webhooks verify signatures'
complete -c signaling-server -n "__fish_signaling_server_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "status" -d 'Show the server\'s state and its latest warnings and errors'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "rooms" -d 'List the rooms that have members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "room" -d 'Show a room\'s members and its moderation rules'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "timeline" -d 'Show what happened in a room; message contents are never recorded'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "kick" -d 'Remove a member from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "ban" -d 'Remove a member from a room or from all rooms, and deny entry'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "unban" -d 'Remove a ban'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "mute" -d 'Pass on neither a member\'s messages nor what it sends to everyone'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "unmute" -d 'Pass them on again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "lock" -d 'Deny entry to a room; its members stay, and may resume'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "unlock" -d 'Allow entry to a locked room again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "close" -d 'Remove all members from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "reopen" -d 'Allow entry again to a room that was closed with --for'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "capacity" -d 'Set how many members a room may have'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "say" -d 'Send a `server_message` to a room, or to one of its members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "rules" -d 'List the bans, locks, mutes and capacities in force'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "drain" -d 'Stop the server as SIGTERM does: clients move to servers that share its rooms, or reconnect when it is back'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and not __fish_seen_subcommand_from status rooms room timeline kick ban unban mute unmute lock unlock close reopen capacity say rules drain help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rooms" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from room" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from timeline" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l user -d 'All members with this username, or the guest of this name' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l client -d 'The member with this client id' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l ban -d 'Also deny entry to the room for this long' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from kick" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l user -d 'All members with this username, or the guest of this name' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l client -d 'The member with this client id' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l for -d 'How long entry is denied' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from ban" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l user -d 'All members with this username, or the guest of this name' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l client -d 'The member with this client id' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unban" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l user -d 'All members with this username, or the guest of this name' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l client -d 'The member with this client id' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l for -d 'For how long; without it, until `unmute`' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from mute" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l user -d 'All members with this username, or the guest of this name' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l client -d 'The member with this client id' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unmute" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from lock" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from unlock" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l for -d 'Also deny entry to the room for this long' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from close" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from reopen" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from capacity" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l to -d 'The client id of the one member to send it to' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l data -d 'Send the text as JSON instead of a string'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from say" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from rules" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -l url -d 'The server\'s address, such as https://signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -l ca -d 'A PEM file with the authority that issued the server\'s certificate, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -l insecure -d 'Send the token without TLS to a server that is not on this machine'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -l json -d 'Print the server\'s answer unchanged, as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from drain" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "status" -d 'Show the server\'s state and its latest warnings and errors'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "rooms" -d 'List the rooms that have members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "room" -d 'Show a room\'s members and its moderation rules'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "timeline" -d 'Show what happened in a room; message contents are never recorded'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "kick" -d 'Remove a member from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "ban" -d 'Remove a member from a room or from all rooms, and deny entry'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "unban" -d 'Remove a ban'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "mute" -d 'Pass on neither a member\'s messages nor what it sends to everyone'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "unmute" -d 'Pass them on again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "lock" -d 'Deny entry to a room; its members stay, and may resume'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "unlock" -d 'Allow entry to a locked room again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "close" -d 'Remove all members from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "reopen" -d 'Allow entry again to a room that was closed with --for'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "capacity" -d 'Set how many members a room may have'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "say" -d 'Send a `server_message` to a room, or to one of its members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "rules" -d 'List the bans, locks, mutes and capacities in force'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "drain" -d 'Stop the server as SIGTERM does: clients move to servers that share its rooms, or reconnect when it is back'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand admin; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand config" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand config" -l set -d 'Print only the settings that the environment or .env sets'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand config" -l json -d 'Print a list of objects, for programs'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand config" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l date -d 'Compare the clock with that of a server, such as https://example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l url -d 'Also ask the server through its public address, such as https://signaling.example.com: what its proxies tell it' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l ca -d 'A PEM file with the authority that issued the certificate there, where the system does not trust it' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l token -d 'Check only the access token on standard input; it is not printed' -r -f -a "-\t''"
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l json -d 'Print the diagnostics as JSON'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -l slow -d 'Also leave a WebSocket idle for 90 s there'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand healthcheck" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand healthcheck" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l domain -d 'The domain of the server, such as signaling.example.com' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l turn -d 'The domain of a TURN server, such as turn.example.com; without it, no TURN server is set up' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l proxy -d 'The proxy that terminates TLS; none: one of your own' -r -f -a "nginx\t'nginx, with certificates of certbot'
caddy\t'Caddy, which obtains its certificate by itself'
none\t'A proxy that is not set up here'"
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l service -d 'What runs the server' -r -f -a "systemd\t'systemd: units, or those of the Debian package'
compose\t'docker compose, with nginx and coturn'"
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l user -d 'The username of the first account' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l user -d 'The user' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l room -d 'A room that the user may join, or the beginning of its name with `*`; again for more. Default: all' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l can -d 'What the user may do: join, send, broadcast, moderate; with commas between them. Default: the first three' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l ice -d 'Whether media may go through TURN servers only: all or relay' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l name -d 'The display name that the members of a room see' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l seconds -d 'How long the token is valid, in seconds. Default: ACCESS_TOKEN_EXPIRE_MINUTES' -r
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand token" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand webhook-secret" -l env-file -d 'Read the settings from this file instead of .env in the working folder' -r -F
complete -c signaling-server -n "__fish_signaling_server_using_subcommand webhook-secret" -s h -l help -d 'Print help'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "admin" -d 'Manage the rooms and members of a running server'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "config" -d 'Print the settings in force and where each comes from; secrets as set or not set'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "doctor" -d 'Check settings, secrets, accounts, files, certificate, port, clock, Redis, and each STUN and TURN server'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "healthcheck" -d 'Ask the running server that the settings name whether it is ready; the exit code is 0 if it is'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "init" -d 'Write settings with fresh secrets, an account, and the files of proxy, TURN server and service for a domain'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "token" -d 'Print an access token for a user of your application, signed with JWT_SECRET_KEY'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "webhook-secret" -d 'Print the secret with which receivers of webhooks verify signatures'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and not __fish_seen_subcommand_from admin config doctor healthcheck init token webhook-secret help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "status" -d 'Show the server\'s state and its latest warnings and errors'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "rooms" -d 'List the rooms that have members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "room" -d 'Show a room\'s members and its moderation rules'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "timeline" -d 'Show what happened in a room; message contents are never recorded'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "kick" -d 'Remove a member from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "ban" -d 'Remove a member from a room or from all rooms, and deny entry'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "unban" -d 'Remove a ban'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "mute" -d 'Pass on neither a member\'s messages nor what it sends to everyone'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "unmute" -d 'Pass them on again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "lock" -d 'Deny entry to a room; its members stay, and may resume'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "unlock" -d 'Allow entry to a locked room again'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "close" -d 'Remove all members from a room'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "reopen" -d 'Allow entry again to a room that was closed with --for'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "capacity" -d 'Set how many members a room may have'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "say" -d 'Send a `server_message` to a room, or to one of its members'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "rules" -d 'List the bans, locks, mutes and capacities in force'
complete -c signaling-server -n "__fish_signaling_server_using_subcommand help; and __fish_seen_subcommand_from admin" -f -a "drain" -d 'Stop the server as SIGTERM does: clients move to servers that share its rooms, or reconnect when it is back'
