package main

import "context"

func Example() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// ada may write: true
	// bob may write: true
	// eve may write: false
	// ada may write: true
	// bob may write: true
	// eve may write: false
	// ada may write: true
	// bob may write: true
	// eve may write: false
	// database reads: 3
	// editors may no longer write
	// ada may write: false
	// bob may write: false
	// eve may write: false
}
