#!/usr/bin/env escript
%% Erlang/OTP: a gen_server with cast and call, compiled to native code where the emulator can.
-mode(compile).
-behaviour(gen_server).
-export([init/1, handle_cast/2, handle_call/3]).

init(Total) -> {ok, Total}.

handle_cast({add, Amount}, Total) -> {noreply, Total + Amount}.

handle_call({add, Amount}, _From, Total) -> {reply, Total + Amount, Total + Amount}.

main([Workload, Text]) ->
    Number = list_to_integer(Text),
    {ok, Counter} = gen_server:start_link(?MODULE, 0, []),
    Start = erlang:monotonic_time(nanosecond),
    Total = run(Workload, Counter, Number),
    Seconds = (erlang:monotonic_time(nanosecond) - Start) / 1.0e9,
    case Total of
        Number -> io:format("{\"seconds\": ~.9f}~n", [Seconds]);
        _ -> io:format(standard_error, "counted ~p instead of ~p~n", [Total, Number]), halt(1)
    end.

run("count", Counter, Number) ->
    tell(Counter, Number),
    gen_server:call(Counter, {add, 0}, infinity);
run("ask", Counter, Number) ->
    ask(Counter, Number, 0).

tell(_Counter, 0) -> ok;
tell(Counter, Left) ->
    gen_server:cast(Counter, {add, 1}),
    tell(Counter, Left - 1).

ask(_Counter, 0, Total) -> Total;
ask(Counter, Left, _Total) -> ask(Counter, Left - 1, gen_server:call(Counter, {add, 1}, infinity)).
