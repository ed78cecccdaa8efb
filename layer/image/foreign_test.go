package image_test

import (
	"os"
	"strings"
	"testing"

	"github.com/plyfs/plyfs/layer/image"
	"github.com/plyfs/plyfs/layer/image/imagetest"
)

// What is compressed in a way that no layer is gets a word about what to do.
func TestForeignCompression(t *testing.T) {
	for head, want := range map[string]string{
		"\xfd7zXZ\x00": "xz -dc FILE | plyfs image load -", "BZh91AY": "bzip2 -dc", "\x04\x22\x4d\x18": "lz4 -dc", "PK\x03\x04": "a zip archive",
	} {
		path := t.TempDir() + "/in"
		if err := os.WriteFile(path, []byte(head+strings.Repeat("x", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
		src, err := image.Open(t.Context(), path, image.OpenOptions{Temp: t.TempDir()})
		if err == nil {
			src.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", head, err, want)
		}
	}
}

// An attribute that does not fit into an inode is left out: on ext4 the error for it is that of a full disk, which it is not.
func TestLargeAttribute(t *testing.T) {
	if _, _, err := unpack(t, imagetest.Tar(imagetest.Tree("f a x\nx a user.big "+strings.Repeat("v", 60_000))), image.UnpackOptions{}); err != nil {
		t.Error(err)
	}
}
