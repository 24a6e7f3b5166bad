// Package small has a change of each kind.
package small

import "strings"

const lines = 4 * 1024

type meters int

// Clamp is tested.
func Clamp(n, most meters) meters {
	if n > most {
		return most
	}
	return n
}

// Count is tested.
func Count(list []string, key string) (n int) {
	for i := 0; i < len(list); i++ {
		if list[i] == key || strings.ContainsFunc(list[i], func(r rune) bool { return r == '*' }) {
			n++
		}
	}
	return n
}

// Untested is not.
func Untested(a, b float64, s string) (float64, string) {
	return -a + b, s + "x"
}

// Lines is tested.
func Lines() int { return lines % 1000 }
