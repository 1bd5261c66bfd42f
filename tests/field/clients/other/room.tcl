package require websocket

proc handle {socket type text} {
    switch -- $type {
        text {
            puts $text
            if {[string match {*"type":"auth_required"*} $text]} {
                ::websocket::send $socket text "{\"type\":\"auth_token\",\"token\":\"$::env(TOKEN)\"}"
            } elseif {[string match {\{"type":"offer"*} $text]} {
                regexp {"from":("[^"]*")} $text -> from
                ::websocket::send $socket text "{\"type\":\"answer\",\"answer\":{},\"to\":$from}"
            }
        }
        close { puts "closed $text" }
        error { puts "refused $text"; set ::done 1 }
        disconnect - timeout { set ::done 1 }
    }
}

fconfigure stdout -buffering line
if {[catch {::websocket::open $env(ROOM_URL) handle} error]} { puts "refused $error"; exit 1 }
vwait done
