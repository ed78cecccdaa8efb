// Package store keeps what has a name and outlives a mount: images, containers, volumes.
//
// # The directory
//
// A store is one directory of plain files. Nothing in it is a database, and everything a
// person needs to find their data without plyfs is in names and JSON:
//
//	ROOT/
//	  README               says what this directory is
//	  lock                 an empty file to lock
//	  images/
//	    names.json         {"app:v1": "sha256:6b3a…", …}: which name means which image
//	    6b3a…/             one image; the name is the SHA-256 of config.json
//	      config.json      the image's configuration, byte for byte as it came
//	      image.json       its layers, topmost first, and where it came from
//	  layers/
//	    91f0…/             one layer; the name is its diff id, the SHA-256 of its tar archive
//	      tree/            what is mounted: the files, with overlayfs' whiteouts and marks
//	      layer.json       sizes, and what was left out or assumed while unpacking
//	      recipe.gz        the archive without its files' contents: with tree/ it gives the
//	                       archive back, bit for bit
//	  containers/NAME/     see container.go
//	  volumes/NAME/        see volume.go
//	  staging/             what is being made or taken away; whoever opens the store next
//	                       removes what a killed command left
//
// A layer is in layers/ once, for any number of images. Who uses a layer is not counted
// anywhere but found by looking: images name their layers, containers their image.
//
// # What a kill leaves
//
// A thing is made in staging/, put on disk, and renamed to its place; it is taken away by
// renaming it to staging/ first. A file is replaced by renaming a new one over it. So
// whatever is outside of staging/ is whole, always, and a command killed at any moment
// leaves the store as it was before or as it is after. Layers that an interrupted load
// had finished stay for the next try; prune removes them.
//
// # What a bad disk leaves
//
// A record that cannot be understood is a [Damage]. Everybody goes on without it and says so; what it may use stays
// where it is, which for an image of unknown layers is every layer, and for a container every image and
// volume. The thing itself can be removed, and mended: an image by loading it again, a volume by creating it.
//
// # Locks
//
// All are flock(2) locks, which the kernel lets go when a process ends, however it ends:
//
//	ROOT/lock              shared while records are read ([Store.View]), exclusive while they
//	  │                    change ([Store.Update]); never held while data is copied
//	  └─► layers/HEX       shared by whoever is about to name the layer in a record, or has it mounted: it is
//	                       not removed meanwhile. Removers only try, and leave the layer if they fail
//	staging/X              exclusive by its maker for as long as it is wanted
//
// The layer's lock may be taken without the first one, to be looked at again once the
// record is written under the first.
package store
