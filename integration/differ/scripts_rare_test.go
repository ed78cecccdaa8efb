package differ

// rareScripts are as scripts: what is open, what is seldom done, and who does it.
var rareScripts = map[string]string{
	"a file open on its lower one is linked by path": `
		variant passthrough
		layer
			put a 100 277
		run
			open 1 a r
			link a e
			append a 81 860
			flink 1 c
			write c 4096 100 228
			stat e
			stat c
			write e 5000 100 3
			stat a
			stat c
			read c
			write a 6000 10 4
			stat c
			fread 1 0 50`,
	"a file open on its lower one is linked by descriptor": `
		variant passthrough
		layer
			put a 100 277
		run
			open 1 a r
			flink 1 c
			write c 4096 100 228
			stat a
			write a 8096 100 228
			stat c
			read c
			flink 1 d
			stat d
			append c 1 1
			stat d
			stat a`,
	"a file open on its lower one shows what becomes of it": `
		variant passthrough
		layer
			put e 169 450
		run
			open 1 e r
			put e 183 507
			fstat 1
			fchmod 1 0600
			stat e
			fchmod 1 0640
			stat e
			chmod e 0444
			fstat 1
			append e 100 1
			fstat 1
			close 1
			stat e
			chmod e 0400
			stat e`,
	"what somebody else may do, and leaves": `
		variant disk
		layer
			chmod . 01777
			put a 9000 1
			chmod a 04777
			put s 9000 1
			chmod s 02777
			mkdir d 0777
			chmod d 02777
			dacl d u=7,u1000=0,g=7,g2=5,m=7,o=5
			acl a u=7,u1001=6,g=4,m=6,o=0
		run
			as 1001 022 open 0 s rw
			as 1001 022 fwrite 0 5000 100 2
			fstat 0
			as 1000 077 create d/f 0666
			as 1001 077 create d/g 0666
			as 1001 000 mkdir d/h 0777
			as 1001 022 tmpfile d d/i 100 3
			as 1000 022 read d/g
			as 1002 022 unlink a
			as 1001 022 write a 100 10 3
			as 1001 022 chmod a 0644
			as 1002 022 rename a b
			as 1002 022 chown d/f 1002 2
			as 1001 022 setx a user.x v
			as 1001 022 listx a
			as 1001 022 utime d/g now omit
			as 1002 022 utime d/g 5 5
			as 1000 022 rmtree d
			as 0 077 put u 5 5
			as 0 002 mkdir v 0777
			stat u
			stat v`,
	"what is seldom done": `
		variant disk
		layer
			put a 20000 1
			mkdir d 0755
			put d/a 1 1
			put d/b 1 1
			put d/c 1 1
			mkdir d/e 0755
		run
			mwrite a 5000 100 3
			dwrite a 4 1 7
			dread a 3 2
			kalloc a 30000 5000
			kzero a 19000 4000
			read a
			open 0 d r
			fsome 0
			unlink d/b
			create d/x 0644
			rename d/a d/y
			fsome 0
			fend 0
			topen 1 d
			fwrite 1 0 100 3
			flink 1 d/t
			topen 2 d x
			flink 2 d/u
			setx a user.x v create
			setx a user.x v create
			setx a user.y v replace
			utime a omit 5
			utime d/t now omit
			open 3 a a
			fwrite 3 0 5 5
			fpunch 3 0 4096
			fzero 3 4096 4096
			falloc 3 40000 4096
			fchown 3 1000 1
			futime 3 omit 7
			read a
			stat a
			open 3 q c
			unlink q
			fwrite 3 0 5 5
			fchown 3 1000 1
			fstat 3`,
	"a set-group-id bit without execution, and who gives a group": `
		variant disk
		layer
			create a 02644
			create b 02644
			chown b 1002 0
		run
			chmod a 02644
			chown a 1002 0
			stat a
			as 1002 022 chown a 1002 2
			stat a
			chmod b 02644
			chown b 1002 2
			stat b
			as 1002 022 chown b 1002 2
			stat b`,
	"the names of a file whose attributes were copied up": `
		variant metacopy-pass
		layer
			put c 54 545
			link c d
			link c e
		run
			chmod c 0600
			open 0 c r
			append e 10 1
			stat d
			stat c
			read d
			stat e
			fread 0 0 100
			fstat 0`,
	"what nobody may change": `
		variant disk
		layer
			put a 100 1
			put b 100 1
			mkdir d 0755
			create d/f 0644
			chattr b i
		run
			chattr a a
			append a 10 1
			write a 0 10 2
			dwrite a 1 1 3
			alloc a 3821 6898
			punch a 0 10
			trunc a 0
			flags a
			flags b
			write b 0 10 1
			unlink b
			chattr d a
			create d/g 0644
			unlink d/f
			rename d/f d/h
			chattr d i
			create d/i 0644
			remount
			flags d
			append a 10 1
			chattr b -
			write b 0 10 1
			utime e omit omit`,
	"the time after fallocate, with writeback": `
		variant writeback
		on tmpfs
		layer
			put d 10 964
			put e 10 964
		run
			kzero d 3622 7956
			open 0 e w
			fpunch 0 3622 7956`,
	"the number of a file that parts from its other names when it is opened": `
		variant noindex-pass
		on xfs
		layer
			symlink z/y e
			mkdir a 0000
			mkdir a/e 0444
			create a/e/a 0600
			link a/e/a a/e/d
			mkdir b 02755
		run
			rename a b/c
			rename b/c/e b/c/d
			open 2 b/c/d/d rw
			stat b/c/d/d`,
	"the number of a link that parts when an attribute is set": `
		variant noindex
		on xfs
		layer
			mkdir b 0444
			mkdir e 0755
			symlink ../z e/d
			link e/d c
		layer
			rename e b/e
		run
			setx b/e/d security.s x192 replace
			setx c security.s x192`,
	"a default list of what can have none": `
		variant disk
		layer
			put a 80 484
		run
			put b 80 484
			chattr b ia
			rmacl b dacl`,
	"the count of names of a file open on its lower one": `
		variant passthrough
		layer
			put c 132 589
			mkdir d 0755
		run
			open 1 c r
			link c d/d
			copy c d/d 4422 2067 6223
			flink 1 d/c
			stat c`,
	"no list to take away, after a swap": `
		variant writeback
		layer
			mkdir c 02644
			put c/c 195 423
		run
			rename c e
			open 3 e/c rw
			swap
			as 0 077 rmacl e/c acl`,
	"a name of a file that was handed over by descriptor, opened anew": `
		variant passthrough
		layer
			put b 3 34
		run
			open 2 b r
			flink 2 c
			open 2 b a
			stat c
			fwrite 2 0 50 6
			stat b
			stat c
			write b 0 100 3
			stat c
			close 2
			utime c 2000073 2000066
			stat b
			link b d
			append d 10 4
			stat b
			stat c
			stat d`,
	"a further name of a file that was handed over, by its old descriptor": `
		variant passthrough
		layer
			put b 3 34
			mkdir d 0755
		run
			open 2 b r
			write b 0 50 6
			flink 2 d/c
			close 2
			stat d/c
			utime b 2000073 2000066
			stat d/c
			write d/c 0 60 7
			stat b
			unlink b
			stat d/c`,
	"a file that gets another number when it is handed over": `
		variant noindex-pass
		layer
			put b 3 34
			link b c
		run
			open 2 b r
			write b 0 100 3
			stat b
			fchmod 2 0600
			stat b
			fstat 2
			write b 0 300 4
			fstat 2
			stat c`,
	"an attribute of a removed file whose number another one shows": `
		variant noindex
		layer
			mkdir a 04755
			put a/d 113 415
			link a/d b
		run
			open 2 a/d r
			unlink a/d
			fsetx 2 security.s w815
			stat b`,
	"two descriptors of a removed file that is changed": `
		variant noindex
		layer
			put d 0 767
		run
			open 1 d r
			open 0 d r
			unlink d
			fchmod 0 0000
			fstat 1`,
}
