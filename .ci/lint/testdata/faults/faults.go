// Package faults has one fault for each kind of analyzer.
package faults

import (
	"fmt"
	"sync"
)

func unused() {}

//lint:ignore U1000 it is here to be ignored
func ignored() {}

func usedByATest() int { return 1 }

// Copies passes a lock by value.
func Copies(mu sync.Mutex) { fmt.Printf("%d\n", "text") }

// Simple compares with a constant.
func Simple(ok bool) bool { return ok == true }

// Wide needs 64 bits.
const Wide = 1 << 40

// Words is int-sized.
var Words = []int{Wide}

// Many has too many parameters.
func Many(a, b, c, d int, e, f, g string) {}
