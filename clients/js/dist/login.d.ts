export interface Account {
    /** Where the server is, as for `connect`. */
    url: string;
    username: string;
    password: string;
}
/**
 * A `getToken` for an account: logs in when a token is first needed, refreshes it while it is good, and logs in again
 * where it is not.
 *
 * What it throws is a {@link SignalError}: `fatal` where the server refused, with `retryAfter` where it asked to wait.
 */
export declare function signIn({ url, username, password }: Account): (renew: boolean) => Promise<string>;
