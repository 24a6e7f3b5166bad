package small

import "testing"

func TestClamp(t *testing.T) {
	if Clamp(3, 2) != 2 || Clamp(1, 2) != 1 {
		t.Error("wrong")
	}
}

func TestCount(t *testing.T) {
	if Count([]string{"a", "b", "c", "*"}, "a") != 2 {
		t.Error("wrong")
	}
}

func TestLines(t *testing.T) {
	if Lines() != 96 {
		t.Error("wrong")
	}
}
