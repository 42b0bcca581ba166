"""What a virtual machine boots from: a disk with an image's files, and a kernel kit that all images share.

`store` keeps the disks next to the images, and `disk` makes one as the owner of the image's files. `kernel_kits` keeps the kits, each
made by `kernel_kit` of an image of Debian; `initrd` and `cpio` are pure. Nothing is started here, and nothing of an image is executed or
mounted.
"""
