package peer_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/weircache/weir/peer"
)

// Two nodes of one cluster find each other.
func Example() {
	ctx := context.Background()
	quiet := slog.New(slog.DiscardHandler)

	a, err := peer.Start(ctx, peer.Config{Name: "catalog-1", Logger: quiet})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	b, err := peer.Start(ctx, peer.Config{Name: "catalog-2", Join: []string{a.Addr()}, Logger: quiet})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Leave(ctx)

	for _, m := range b.View().Members() {
		fmt.Println(m.Name)
	}
	// Output:
	// catalog-1
	// catalog-2
}

// Nodes with one secret trust each other, and nobody else.
func ExampleParseSecret() {
	ctx := context.Background()
	quiet := slog.New(slog.DiscardHandler)
	secret, err := peer.ParseSecret("6b1f0c5de3a94c1f8a7d2e4b90c3f5a61d2e3f405162738495a6b7c8d9eafb0c") // openssl rand -hex 32
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(secret)

	a, err := peer.Start(ctx, peer.Config{Name: "catalog-1", Secret: secret, Logger: quiet})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	fmt.Println(a.Stats().Node.Trust)
	// Output:
	// [secret]
	// secret
}
