export interface Account {
    /** The base URL of the server, as for `connect`. */
    url: string;
    username: string;
    password: string;
}
/**
 * Makes a `getToken` for an account. It logs in when the first token is needed, refreshes the token while it is valid,
 * and logs in again when a refresh is refused.
 *
 * It throws a {@link SignalError}: `fatal` if the server refuses the login, with `retryAfter` if the server asks for a delay.
 */
export declare function signIn({ url, username, password }: Account): (renew: boolean) => Promise<string>;
