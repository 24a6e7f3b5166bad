package main

import "context"

func Example() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// CHF 0.95
	// CHF 0.95
	// CHF 0.95
	// asked 3 times, sent 1 times
}
