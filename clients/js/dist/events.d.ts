/** Dispatches events to listeners by name, and to async iterators in order. */
export declare class Emitter<Events extends object> {
    /** Calls `listener` for each event of this name, until the returned function is called. */
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
    /** Resolves with the next event of this name. */
    once<Name extends keyof Events>(name: Name): Promise<Events[Name]>;
    /** Yields every event from now on, each with its name as `type`, until the session is closed. */
    [Symbol.asyncIterator](): AsyncGenerator<{
        [Name in keyof Events]: {
            type: Name;
        } & Events[Name];
    }[keyof Events]>;
}
