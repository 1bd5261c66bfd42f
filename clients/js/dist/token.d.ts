/** The expiry time of a JWT, in milliseconds since the Unix epoch; undefined if the token states none. */
export declare function expiryOf(token: string): number | undefined;
