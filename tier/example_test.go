package tier

import (
	"context"
	"fmt"
	"time"
)

func Example() {
	ctx := context.Background()
	load := func(ctx context.Context, sku string) (string, error) {
		fmt.Println("asking the origin for", sku)
		return "a lamp", nil
	}
	products, err := New(Config[string]{
		Loader:    ByKey(load),
		Freshness: Freshness{TTL: time.Minute, StaleIfError: time.Hour},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer products.Close(ctx)
	for range 3 {
		name, err := products.Get(ctx, "sku-42")
		fmt.Println(name, err)
	}
	// Output:
	// asking the origin for sku-42
	// a lamp <nil>
	// a lamp <nil>
	// a lamp <nil>
}
