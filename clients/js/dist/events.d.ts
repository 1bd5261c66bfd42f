/** Listeners by event name, and every event in turn for whoever iterates. */
export declare class Emitter<Events extends object> {
    private isOver;
    /** Calls `listener` for each event of this name, until the function that it returns is called. */
    on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
    /** Resolves with the next event of this name. */
    once<Name extends keyof Events>(name: Name): Promise<Events[Name]>;
    /** Every event from now on, each with its name as `type`, until the session is closed. */
    [Symbol.asyncIterator](): AsyncGenerator<{
        [Name in keyof Events]: {
            type: Name;
        } & Events[Name];
    }[keyof Events]>;
}
