import java.net.URI;
import java.util.regex.*;

/** What all clients in Java share: where the room is, and what they answer there. */
class Room {
    static final URI URL = URI.create(System.getenv("ROOM_URL"));

    /** Prints a message, and returns the answer to it, or null. */
    static String reply(String text) {
        System.out.println(text);
        if (text.contains("\"type\":\"auth_required\"")) return "{\"type\":\"auth_token\",\"token\":\"" + System.getenv("TOKEN") + "\"}";
        if (!text.startsWith("{\"type\":\"offer\"")) return null;
        var from = Pattern.compile("\"from\":(\"[^\"]*\")").matcher(text);
        from.find();
        return "{\"type\":\"answer\",\"answer\":{},\"to\":" + from.group(1) + "}";
    }

    /** Prints how the connection has ended, and ends the process, whose library has threads. */
    static void end(String how) {
        System.out.println(how);
        System.exit(0);
    }
}
