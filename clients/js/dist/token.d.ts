/** How long a JWT is valid from its issue on, in milliseconds; undefined if it does not state both times. */
export declare function lifetimeOf(token: string): number | undefined;
