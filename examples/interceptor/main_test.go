package main

import "context"

func Example() {
	if err := run(context.Background()); err != nil {
		panic(err)
	}
	// Output:
	// shop SERVING OK
	// bank UNKNOWN NotFound
	// shop SERVING OK
	// bank UNKNOWN NotFound
	// shop SERVING OK
	// bank UNKNOWN NotFound
	// calls: 2
}
