package main

import "context"

func Example() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// the lamp costs 10 <nil>
	// the lamp costs 11 <nil>
	// the lamp costs 12 <nil>
	// 203 changes applied, 0 stale answers
	// the worker ends: context canceled
}
